"""`python -m router calibrate FILE`: choose a cascade's thresholds from labelled questions, and show what they cost."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mesh.lifecycle import EX_USAGE
from router.adapters.labelled import Columns, LabelError, read
from router.core.calibrating import Result, calibrate

_POINTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_BAR = 40


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code, 64 for a file or a command line that cannot be used."""
    options = _parser().parse_args(arguments)
    columns = Columns(options.prompt, options.weak, options.strong, options.group, options.answer)
    try:
        result = calibrate(read(options.file, columns), options.quality, options.file.name)
    except (LabelError, ValueError, OSError) as error:
        print(f"calibration refused: {error}", file=sys.stderr)
        return EX_USAGE
    if options.out:
        options.out.write_bytes(msgspec.json.format(msgspec.json.encode(result.calibration), indent=2) + b"\n")
    print(json.dumps(summary(result)) if options.json else _table(result, options.out))
    return 0


def summary(result: Result) -> dict[str, object]:
    """The result's figures as plain values; shares and qualities 0 to 1."""
    return {
        "questions": result.questions,
        "weak_quality": result.weak_quality,
        "strong_quality": result.strong_quality,
        "target_quality": result.target,
        "strong_share": result.strong_share,
        "random_share": result.random_share,
        "length_share": result.length_share,
        "curve": [{"share": s, "quality": result.curve.quality_at(s)} for s in _POINTS],
    }


def _table(result: Result, out: Path | None) -> str:
    low, high = result.weak_quality, result.strong_quality
    lines = [
        f"{result.questions} questions; quality of the cheap model {low:.3f}, of the strong one {high:.3f}",
        "",
        "to the strong model   quality   by a coin",
    ]
    for share in _POINTS:
        quality = result.curve.quality_at(share)
        filled = round(_BAR * (quality - low) / (high - low)) if high > low else 0
        bar = "█" * min(_BAR, max(0, filled))
        lines.append(f"{share:18.0%}     {quality:.3f}     {low + share * (high - low):.3f}  {bar}")
    lines += [
        "",
        f"for a quality of {result.target:.3f}: {result.strong_share:.1%} to the strong model "
        f"(a coin {result.random_share:.1%}, the longest first {result.length_share:.1%})",
    ]
    lines.append(f"written to {out}" if out else "nothing written; give --out FILE to keep it")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    named = Columns()
    parser = argparse.ArgumentParser(
        prog="headrace cascade calibrate",
        description="Fit a cascade's score to labelled questions, group by group held out, and choose its threshold.",
    )
    parser.add_argument("file", type=Path, help="CSV or JSON lines, may be gzipped")
    parser.add_argument("--prompt", default=named.prompt, help="the question's column")
    parser.add_argument(
        "--weak", default=named.weak, help="how good the cheap model's answer was: 0 to 1, or true/false"
    )
    parser.add_argument("--strong", default=named.strong, help="the same of the strong model's")
    parser.add_argument("--group", default=named.group, help="what is held out together, for example a subject")
    parser.add_argument("--answer", default=named.answer, help="the cheap model's answer, if there is one")
    parser.add_argument("--quality", type=_share, default=0.95, help="the share of the strong model's quality to keep")
    parser.add_argument("--out", type=Path, help="where to write the calibration for router.yaml")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _share(text: str) -> float:
    share = float(text)
    if not 0.0 < share <= 1.0:
        raise argparse.ArgumentTypeError("between 0 and 1")
    return share
