"""`make bench-cascade`: the cost-quality curve on RouteLLM's real outcomes, on subjects that training has not seen."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from router.adapters.labelled import Columns, read
from router.calibrate import summary
from router.core.calibrating import calibrate

WEAK, STRONG = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
SETS = {
    "mmlu": ("routellm_mmlu_half.csv.gz", Columns(weak=WEAK, strong=STRONG, group="subject")),
    "gsm8k": ("routellm_gsm8k.csv.gz", Columns(weak=WEAK, strong=STRONG, answer=f"{WEAK}_response")),
}
KEPT = 0.95


def main() -> int:
    """Print a table and the figures as one JSON line; 1 when the data is not there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder with RouteLLM's outcomes")
    folder = parser.parse_args().data
    missing = [name for name, _ in SETS.values() if not (folder / name).exists()]
    if missing:
        print(f"{folder} has no {', '.join(missing)}: give the folder with --data", file=sys.stderr)
        return 1
    results = {key: calibrate(read(folder / name, columns), KEPT, name) for key, (name, columns) in SETS.items()}
    print(f"share of questions for the strong model at {KEPT:.0%} of its quality")
    print(f"{'set':8}{'questions':>10}{'headrace':>10}{'longest':>10}{'coin':>10}")
    for key, r in results.items():
        print(f"{key:8}{r.questions:10}{r.strong_share:10.3f}{r.length_share:10.3f}{r.random_share:10.3f}")
    mmlu = results["mmlu"]
    figures = [
        {
            "name": "strong_share_at_95pct",
            "value": round(mmlu.strong_share, 4),
            "unit": "share",
            "peers": {"random": round(mmlu.random_share, 4), "length": round(mmlu.length_share, 4)},
        },
        {"name": "random_share_at_95pct", "value": round(mmlu.random_share, 4), "unit": "share"},
    ]
    curves = {key: summary(r)["curve"] for key, r in results.items()}
    print(json.dumps({"bench": "cascade", "figures": figures, "curves": curves}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
