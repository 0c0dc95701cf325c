"""docs/metrics.md, made from the code: `make docs`. Whatever calls prometheus_client for a metric is in it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.state import CHECKOUT

PAGE: Final = CHECKOUT / "docs/metrics.md"
_KINDS: Final = ("Counter", "Gauge", "Histogram", "Summary", "Info", "Enum")
# Who shows what is declared below a folder; the longest prefix counts.
_OWNERS: Final = {
    "mesh": "Every process",
    "mesh/control": "The control plane",
    "gateway": "Gateways",
    "router": "Routers",
    "inference": "Inference nodes",
}
_HEAD: Final = """\
# Metrics

Made from the code by `make docs`; a test compares the two.

Prometheus finds the metrics of a process at `/metrics` of its `metrics` port in the stack file
(`HEADRACE_<KIND>_METRICS_PORT`; 0, the default, serves none). Envoy has its own at `/stats/prometheus` of its admin
address.
"""


@dataclass(frozen=True, slots=True, order=True)
class Metric:
    """One metric as it is declared."""

    name: str
    kind: str
    about: str
    labels: tuple[str, ...]


def declared(folder: Path) -> Iterator[tuple[Path, Metric]]:
    """The metrics of the code below a folder, with the files that declare them.

    Raises ValueError for one whose name, text or labels are not written out where it is declared.
    """
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _is_metric(node.func):
                assert isinstance(node.func, ast.Attribute)
                yield file, _metric(node.func.attr, node, file)


def _is_metric(function: ast.expr) -> bool:
    return (
        isinstance(function, ast.Attribute)
        and function.attr in _KINDS
        and isinstance(function.value, ast.Name)
        and function.value.id == "prometheus_client"
    )


def _metric(kind: str, call: ast.Call, file: Path) -> Metric:
    labels = [*call.args[2:3], *(one.value for one in call.keywords if one.arg == "labelnames")]
    try:
        name, about = (ast.literal_eval(argument) for argument in call.args[:2])
        found = tuple(str(label) for label in ast.literal_eval(labels[0])) if labels else ()
    except ValueError as error:
        raise ValueError(f"{file}:{call.lineno}: name, text and labels of a metric must be written out") from error
    shown = f"{name.removesuffix('_total')}_total" if kind == "Counter" else str(name)
    return Metric(shown, kind.lower(), " ".join(str(about).split()), found)


def page(checkout: Path = CHECKOUT) -> str:
    """The whole page."""
    by_owner: dict[str, list[Metric]] = {owner: [] for owner in _OWNERS.values()}
    for package in sorted({prefix.partition("/")[0] for prefix in _OWNERS}):
        for file, metric in declared(checkout / package):
            by_owner[_owner(file.relative_to(checkout))].append(metric)
    return _HEAD + "".join(_section(owner, metrics) for owner, metrics in by_owner.items() if metrics)


def _owner(file: Path) -> str:
    prefixes = [prefix for prefix in _OWNERS if file.is_relative_to(prefix)]
    return _OWNERS[max(prefixes, key=len)]


def _section(owner: str, metrics: list[Metric]) -> str:
    rows = "".join(
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {_cell(one.about)} |\n"
        for one in sorted(metrics)
    )
    return f"\n## {owner}\n\n| name | kind | labels | what |\n|---|---|---|---|\n{rows}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Write the page; returns the exit code."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
