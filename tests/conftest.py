"""What every tier of tests shares: their order, quickest first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.run import REPORT_VARIABLE, write_report

# Triton's interpreter stands in for a device where there is none. Kernels take their choice when they are first
# imported, by whichever test that is, so it is made here.
if not any(Path("/dev").glob("nvidia[0-9c]*")):
    os.environ["TRITON_INTERPRET"] = "1"

# How long an example takes is the machine's affair, and what is drawn is the same each time: a failure is a finding,
# not chance. ARGS=--hypothesis-profile=default draws anew.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parent.parent
_TIERS = ("unit", "contract", "integration", "bench", "e2e", "drills", "gpu", "peers")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the quick tiers first, so that a simple mistake is seen before the mesh is started."""
    items.sort(key=lambda item: _TIERS.index(_tier(item)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell `tests.run` what failed."""
    if REPORT_VARIABLE in os.environ:
        write_report(terminalreporter)


def _tier(item: pytest.Item) -> str:
    name = item.path.relative_to(ROOT / "tests").parts[0]
    assert name in _TIERS, f"tests/{name} is no tier: put the test into one of {', '.join(_TIERS)}"
    return name
