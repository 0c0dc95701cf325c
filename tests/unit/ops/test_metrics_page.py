"""docs/metrics.md says what the code has, and what a process shows."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import prometheus_client
import pytest

from ops.metrics_page import PAGE, declared, page

_DECLARING = ("mesh.telemetry", "mesh.watched_file", "gateway.adapters.metrics", "router.adapters.metrics")


def test_the_page_is_that_of_the_code() -> None:
    assert PAGE.read_text() == page(), "write it anew: make docs"


def test_what_a_process_shows_is_on_the_page_under_that_name() -> None:
    for module in _DECLARING:
        importlib.import_module(module)
    text = PAGE.read_text()
    shown = re.findall(r"^# TYPE (headrace_\w+) (\w+)$", prometheus_client.generate_latest().decode(), re.MULTILINE)
    wanted = [(name, kind) for name, kind in shown if not name.endswith("_created")]
    assert len(wanted) > 8
    for name, kind in wanted:
        assert f"| `{name}` | {kind} |" in text


def test_a_metric_whose_name_is_made_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import prometheus_client\nx = prometheus_client.Gauge(NAME, 'About.')\n")
    with pytest.raises(ValueError, match=r"a.py:2: "):
        list(declared(tmp_path))


def test_labels_and_text_are_read_however_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "import prometheus_client\n"
        "x = prometheus_client.Counter('c', 'One ' 'text.', labelnames=('a', 'b'))\n"
        "y = prometheus_client.Histogram('h', 'H.', buckets=(1, 2))\n"
    )
    found = [metric for _, metric in declared(tmp_path)]
    assert [(m.name, m.kind, m.about, m.labels) for m in found] == [
        ("c_total", "counter", "One text.", ("a", "b")),
        ("h", "histogram", "H.", ()),
    ]
