"""How the command ends when the system refuses, and whether what it says can be typed."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.stack import parse
from ops import app as command_line
from ops.app import run
from ops.failure import ExitCode, Failure
from ops.invocation import DEFAULT_STATE, Invocation
from ops.local.given import changes, read_given, remember, remembered, since_started
from ops.local.lock import locked
from ops.state import StateDir, write_private
from tests.unit.ops.test_processes import STACK

_ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _signals_as_before() -> object:
    """Each run of the command line takes SIGTERM for itself."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    "text", ["see headrace status", "headrace down && headrace up --stack 'a b'", "see: headrace logs x"]
)
def test_commands_that_are_told_name_the_state_folder(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    typed = Invocation(folder).typed(text)
    assert typed.count(f"headrace --state-dir '{folder}' ") == text.count("headrace ")
    assert Invocation(DEFAULT_STATE).typed(text) == text


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["scale", "a=1"],
        ["logs", "a"],
        ["config", "dump"],
        ["explain", "x"],
        ["drill", "run", "replica-kill", "--running"],
    ],
)
def test_whatever_command_fails_its_next_step_is_for_that_folder(
    arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["--state-dir", str(tmp_path / "s"), *arguments]) == ExitCode.UNAVAILABLE
    assert f"headrace --state-dir {tmp_path / 's'} up" in capfd.readouterr().err


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO, errno.EMFILE])
def test_what_the_system_refuses_is_said_in_words(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code), str(tmp_path / "keys.yaml"))

    monkeypatch.setattr("ops.keystore.write_private", refuse)
    made = run(["--state-dir", str(tmp_path / "s"), "keys", "new", "--id", "a", "--tenant", "b"])
    said = capfd.readouterr().err
    assert made == ExitCode.IO
    assert os.strerror(code) in said
    assert str(tmp_path / "keys.yaml") in said
    assert "next:" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("arguments", [["drill", "list"], ["keys", "list", "--json"]])
def test_a_full_disk_behind_stdout_is_no_traceback(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ops", "--state-dir", str(tmp_path / "s"), *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, cwd=_ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == ExitCode.IO
    assert os.strerror(errno.ENOSPC) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "stack.yaml"
    write_private(file, "before")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        write_private(file, "after")
    assert caught.value.filename == str(file)
    assert [one.name for one in tmp_path.iterdir()] == ["stack.yaml"]
    assert file.read_text() == "before"


def test_sigterm_ends_a_command_with_its_own_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ended: list[str] = []

    def work(*_: object) -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            ended.append("stopped what was started")
        return 0

    monkeypatch.setattr("ops.keystore.KeyStore.list", work)
    assert run(["--state-dir", str(tmp_path), "keys", "list"]) == ExitCode.TERMINATED
    assert ended
    assert command_line.run(["drill", "list", "--json"]) == ExitCode.OK


def _hold(file: Path, held: object, release: object) -> None:
    with locked(file, 1.0, print):
        held.set()  # type: ignore[attr-defined]  # an event between processes
        release.wait(60)  # type: ignore[attr-defined]  # the same


def test_one_command_waits_for_the_other_and_says_so(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    file, held, release = tmp_path / "lock", spawn.Event(), spawn.Event()
    other = spawn.Process(target=_hold, args=(file, held, release))
    other.start()
    try:
        assert held.wait(60)
        said: list[str] = []
        with pytest.raises(Failure, match="still works on"), locked(file, 0.0, said.append):
            pytest.fail("it is held")
        assert [f"pid {other.pid}" in line for line in said] == [True]
        # The moment it says so the other is let go, and then it is ours.
        with locked(file, 60.0, lambda _: release.set()):
            pass
    finally:
        release.set()
        other.join(60)
    assert other.exitcode == 0


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    file, held, never = tmp_path / "lock", spawn.Event(), spawn.Event()
    other = spawn.Process(target=_hold, args=(file, held, never))
    other.start()
    assert held.wait(60)
    other.kill()
    other.join(60)
    said: list[str] = []
    with locked(file, 60.0, said.append):
        assert not said


def test_what_changed_is_named_and_no_value_of_the_environment_is_shown() -> None:
    before = parse(STACK)
    after = parse(STACK.replace('DEADLINE_S: "5"', 'DEADLINE_S: "secret"').replace("grpc: 17300", "grpc: 17301"))
    assert changes(before, before) == ()
    assert set(changes(before, after)) == {
        "services.routing.env.HEADRACE_ROUTER_DRAIN_DEADLINE_S: changed",
        "services.tiny.ports.grpc: 17300, now 17301",
    }
    more = parse(STACK + "  other: {kind: inference, ports: {grpc: 17500}}\n")
    assert all(line.startswith("services.other.") and line.endswith("is new") for line in changes(before, more))
    assert all(line.endswith("is gone") for line in changes(more, before))


def test_scaling_is_no_change_of_the_file_and_settles_one() -> None:
    one, two = parse(STACK), parse(STACK.replace("inference, replicas: 1", "inference, replicas: 2"))
    # Scaled by hand, the file as it was.
    assert since_started(one, two, one) == ()
    # The file asks for more, and then has got it.
    assert since_started(one, one, two) == ("services.tiny.replicas: 1, now 2",)
    assert since_started(one, two, two) == ()


def test_what_was_given_is_remembered_with_its_place(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "s")
    state.create()
    assert remembered(state) is None
    file = tmp_path / "stack.yaml"
    file.write_text(STACK)
    remember(read_given(file), state)
    again = remembered(state)
    assert again is not None
    assert (again.path, again.stack) == (str(file), parse(STACK))
    file.write_text(STACK + "x: [")
    with pytest.raises(Failure, match=r"stack.yaml:\d+: "):
        read_given(file)
