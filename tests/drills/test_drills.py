"""Drills, played: they pass, and they fail when their safety net is switched off."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from ops.failure import ExitCode

pytestmark = pytest.mark.e2e
_ROOT = Path(__file__).resolve().parents[2]
_FOLDER = _ROOT / "deploy/drills"


def _command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "ops", "--state-dir", str(folder), "drill", "run", *arguments]


def _play(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Play a drill; its exit code and the verdict on its last line."""
    done = subprocess.run(
        _command(folder, *arguments), cwd=_ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    return done.returncode, json.loads(lines[-1])


def _shortened(folder: Path, name: str) -> str:
    """The drill's file with less load before and during the fault."""
    file = folder / f"{name}.yaml"
    text = (_FOLDER / f"{name}.yaml").read_text()
    file.write_text(re.sub(r"before_s: [0-9.]+, during_s: [0-9.]+", "before_s: 1, during_s: 1.5", text))
    return str(file)


@pytest.mark.parametrize("name", ["replica-kill", "provider-cut"])
def test_a_drill_passes_with_its_net_and_fails_without(tmp_path: Path, name: str) -> None:
    """The verdict is of what callers saw: the same faults, and only the net is missing."""
    file = _shortened(tmp_path, name)
    code, verdict = _play(tmp_path, file)
    assert (code, verdict["failed"]) == (ExitCode.OK, [])
    assert (verdict["drill"], verdict["passed"]) == (name, True)
    page = Path(verdict["report"]).read_text()
    assert page.count("<svg") == 3
    assert "http" not in page
    code, verdict = _play(tmp_path, file, "--sabotage")
    assert (code, verdict["passed"]) == (ExitCode.NEGATIVE, False)
    assert verdict["severed"] > 0
    assert verdict["wrong"] == verdict["silent"] == 0


def test_a_drill_without_its_net_ends_itself_past_its_losses(tmp_path: Path) -> None:
    """With its net it passes; without it is stopped by its own limit, long before the time is over."""
    file = Path(_shortened(tmp_path, "edge-abort"))
    assert _play(tmp_path, str(file))[0] == ExitCode.OK
    file.write_text(file.read_text().replace("during_s: 1.5", "during_s: 60") + "abort_losses: 3\n")
    code, verdict = _play(tmp_path, str(file), "--sabotage")
    assert code == ExitCode.NEGATIVE
    assert verdict["lost"] > 3
    assert verdict["aborted"]
    assert verdict["failed"][-1].startswith("losses")


def test_a_drill_that_is_stopped_leaves_nothing_behind(tmp_path: Path) -> None:
    """SIGTERM in the middle: no process, no folder, nothing that stands still."""
    # Of its own, and short: sockets lie in it.
    with tempfile.TemporaryDirectory(prefix="t-") as temporary:
        process = subprocess.Popen(
            _command(tmp_path, "replica-stop"),
            cwd=_ROOT,
            env={**os.environ, "TMPDIR": temporary},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        while (line := process.stderr.readline()) and "broken" not in line:
            pass
        started = [child.pid for child in psutil.process_iter() if _of(child, temporary)]
        assert started
        os.kill(process.pid, signal.SIGTERM)
        process.stderr.close()
        assert process.wait(timeout=60) == ExitCode.NEGATIVE
        deadline = time.monotonic() + 10
        while left := [pid for pid in started if psutil.pid_exists(pid)]:
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
        assert not list(Path(temporary).glob("hd-*"))


def _of(process: psutil.Process, folder: str) -> bool:
    """Whether a process works with the folder."""
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return folder in command


@pytest.mark.parametrize(
    ("content", "says"),
    [("name: [", "not YAML"), ("name: bad\n", "bad.yaml:1: "), (None, "cannot be read")],
)
def test_a_bad_file_is_refused_before_anything_starts(tmp_path: Path, content: str | None, says: str) -> None:
    """With file, line and reason, and the exit code for a wrong command line."""
    file = tmp_path / "bad.yaml"
    if content is not None:
        file.write_text(content)
    done = subprocess.run(
        _command(tmp_path, str(file)), cwd=_ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == ExitCode.USAGE
    assert says in done.stderr
    assert not done.stdout
