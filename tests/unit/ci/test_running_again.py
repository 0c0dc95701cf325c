"""What continuous integration makes of tests that fail: a few are asked once more, and never more than once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import run

_CONFTEST = """\
import os
from tests.run import REPORT_VARIABLE, write_report

def pytest_terminal_summary(terminalreporter):
    if REPORT_VARIABLE in os.environ:
        write_report(terminalreporter)
"""
# Workers take seconds to start.
_ALONE = ("-n0",)
# Passes from the second time on.
_SECOND = """\
from pathlib import Path

def test_second(request):
    seen = Path(__file__).with_suffix(".seen")
    before = seen.exists()
    seen.touch()
    assert before, "the first words"
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own, whose tests find this one's modules."""
    for tier in (*run._SIDE_BY_SIDE, *run._ONE_BY_ONE):
        (tmp_path / tier).mkdir(parents=True)
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    monkeypatch.setenv("PYTHONPATH", str(run.ROOT))
    monkeypatch.delenv(run.REPORT_VARIABLE, raising=False)
    # Other plugins take seconds to load, and have nothing to say here.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p xdist")
    return tmp_path


def test_what_passes_the_second_time_is_flaky_and_shown(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (root / "tests/unit/test_one.py").write_text(_SECOND)
    assert run.everything(_ALONE, root) == 1
    assert run.again(root) == 0
    said = capfd.readouterr().out
    assert "FLAKY tests/unit/test_one.py::test_second" in said
    assert "the first words" in said.partition("FLAKY")[2]


def test_what_fails_twice_has_failed(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (root / "tests/unit/test_one.py").write_text(_SECOND)
    (root / "tests/e2e/test_two.py").write_text("def test_never():\n    assert not 'the last words'\n")
    assert run.everything(_ALONE, root) == 1
    assert run.again(root) == 1
    said = capfd.readouterr().out
    assert "FAILED TWICE tests/e2e/test_two.py::test_never" in said
    assert "the last words" in said.partition("FAILED TWICE")[2]


def test_many_failures_are_not_run_again(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (root / "tests/unit/test_one.py").write_text(
        _SECOND + "".join(f"def test_{i}():\n    assert 0\n" for i in range(3))
    )
    assert run.everything(_ALONE, root) == 1
    assert run.again(root) == 1
    assert "4 tests to run again" in capfd.readouterr().out


def test_a_run_that_broke_is_not_made_up_for(root: Path) -> None:
    (root / "tests/unit/test_one.py").write_text("import nothing_of_this_name\n")
    assert run.everything(_ALONE, root) > 1
    assert run.again(root) == 1


def test_a_tier_without_a_chosen_test_is_no_failure(root: Path) -> None:
    (root / "tests/unit/test_one.py").write_text("def test_chosen():\n    pass\n")
    assert run.everything((*_ALONE, "-k", "chosen"), root) == 0
    assert run.everything((*_ALONE, "-k", "nothing"), root) == 5
