"""Drills, played: they pass, and they fail when their safety net is switched off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from ops.failure import ExitCode

# A mesh is brought up for each play, and two plays make a test: on a busy machine that takes a while.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
_ROOT = Path(__file__).resolve().parents[2]
_FOLDER = _ROOT / "deploy/drills"
# For a play to end, and for what is to be seen in it; seconds.
_PLAY_S = 140.0
_LONG_S = 60.0


def _command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "ops", "--state-dir", str(folder), "drill", "run", *arguments]


def _play(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Play a drill; its exit code and the verdict on its last line."""
    with _started(folder, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=_PLAY_S)
    lines = out.splitlines()
    assert lines, err
    return process.returncode, json.loads(lines[-1])


@contextmanager
def _started(folder: Path, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A drill that plays. Should it still do so at the end it is stopped, and takes its mesh down."""
    process = subprocess.Popen(_command(folder, *arguments), cwd=_ROOT, text=True, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate()


def _shortened(folder: Path, name: str, during_s: float = 1.5) -> str:
    """The drill's file with less load, and with time for all that is to be seen: a test's machine has other work."""
    drill = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text())
    drill["load"] |= {"before_s": 1, "during_s": during_s, "after_s": _LONG_S}
    drill["expect"] |= {key: _LONG_S for key in drill["expect"] if key.endswith("_s")}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(drill))
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
    assert _play(tmp_path, _shortened(tmp_path, "edge-abort"))[0] == ExitCode.OK
    file = Path(_shortened(tmp_path, "edge-abort", during_s=_LONG_S))
    file.write_text(file.read_text() + "abort_losses: 3\n")
    code, verdict = _play(tmp_path, str(file), "--sabotage")
    assert code == ExitCode.NEGATIVE
    assert verdict["lost"] > 3
    assert verdict["aborted"]
    assert verdict["failed"][-1].startswith("losses")


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGTERM, ExitCode.NEGATIVE), (signal.SIGINT, 130)])
def test_a_drill_that_is_stopped_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, ends: int) -> None:
    """SIGTERM or ctrl-C in the middle: no process, no folder, nothing that stands still."""
    # Of its own, and short: sockets lie in it.
    with tempfile.TemporaryDirectory(prefix="t-") as temporary:
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        file = _shortened(tmp_path, "replica-stop", during_s=_LONG_S)
        with _started(tmp_path, file, env={**os.environ, "TMPDIR": temporary}, **options) as process:
            assert process.stderr is not None
            while (line := process.stderr.readline()) and "broken" not in line:
                pass
            started = [child for child in psutil.process_iter() if _of(child, temporary)]
            assert started
            process.send_signal(number)
            process.communicate()
        assert process.returncode == ends
        _, left = psutil.wait_procs(started, timeout=30)
        assert not left
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
