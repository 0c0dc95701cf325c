"""`python -m tests.run [pytest's arguments]`: every tier, the small ones side by side, whole meshes one by one.

`python -m tests.run --again` asks the tests that failed once more, as continuous integration does with a few: one that
passes then is FLAKY, shown with what it said the first time, and has to be repaired; the others have failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
# Where conftest.py lists what failed, for whoever asks once more.
REPORT_VARIABLE: Final = "HEADRACE_TEST_REPORT"
_REPORT: Final = ".pytest_cache/failures.json"
# Tests of one part, each worker with ports of its own. Files stay together: their fixtures are shared.
_SIDE_BY_SIDE: Final = ("tests/unit", "tests/contract", "tests/integration", "tests/bench")
_ONE_BY_ONE: Final = ("tests/e2e", "tests/drills", "tests/gpu")
_WORKERS: Final = ("-n", "auto", "--dist", "loadfile")
# More failures than this are no chance.
_MAX_AGAIN: Final = 3
_PASSED, _FAILED, _NO_TESTS = 0, 1, 5


class Run(NamedTuple):
    """How a run of pytest ended, and what failed in it: test id to what was said."""

    status: int
    failures: dict[str, str]


def everything(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Run all tiers, whatever fails on the way. 0, 1 where tests failed, else pytest's own exit status."""
    report = root / _REPORT
    report.unlink(missing_ok=True)
    runs = [
        pytest((*_WORKERS, *_SIDE_BY_SIDE, *arguments), root),
        pytest((*_ONE_BY_ONE, *arguments), root),
    ]
    worst = max((run.status for run in runs if run.status != _NO_TESTS), default=_NO_TESTS)
    if worst == _FAILED:
        failures: dict[str, str] = {}
        for run in runs:
            failures |= run.failures
        report.write_text(json.dumps(failures))
    return worst


def again(root: Path = ROOT) -> int:
    """Run what failed once more, if it is little. 0 where all of it passes now."""
    report = root / _REPORT
    before: dict[str, str] = json.loads(report.read_text()) if report.exists() else {}
    if not 0 < len(before) <= _MAX_AGAIN:
        print(f"{len(before)} tests to run again: from 1 to {_MAX_AGAIN} are, so this run has failed")
        return _FAILED
    print(f"\nRunning {len(before)} failed tests once more", flush=True)
    run = pytest(tuple(before), root)
    after = dict.fromkeys(before, "") | run.failures
    for test, said in after.items():
        first = f"--- first ---\n{before.get(test, '')}\n"
        if said:
            print(f"\nFAILED TWICE {test}\n{first}--- then ---\n{said}")
        elif run.status == _PASSED:
            print(f"\nFLAKY {test}\n{first}--- then ---\nit passed")
    return run.status


def pytest(arguments: Sequence[str], root: Path) -> Run:
    """Run pytest in `root`."""
    listed = root / ".pytest_cache" / f"report-{os.getpid()}.json"
    listed.parent.mkdir(exist_ok=True)
    environment = os.environ | {REPORT_VARIABLE: str(listed)}
    command = [sys.executable, "-m", "pytest", *arguments]
    status = subprocess.run(command, cwd=root, env=environment, check=False).returncode
    failures: dict[str, str] = json.loads(listed.read_text()) if listed.exists() else {}
    listed.unlink(missing_ok=True)
    return Run(status, failures)


def write_report(terminal: Any) -> None:
    """List what failed in the file that the environment names. Called by conftest.py at the end of a run."""
    failures: dict[str, str] = {}
    for report in (*terminal.stats.get("failed", ()), *terminal.stats.get("error", ())):
        sections = "\n".join(f"--- {title} ---\n{text}" for title, text in report.sections)
        failures[report.nodeid] = failures.get(report.nodeid, "") + f"{report.longreprtext}\n{sections}"
    Path(os.environ[REPORT_VARIABLE]).write_text(json.dumps(failures))


if __name__ == "__main__":
    sys.exit(again() if sys.argv[1:] == ["--again"] else everything(sys.argv[1:]))
