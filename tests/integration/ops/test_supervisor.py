"""A real supervisord: crashed processes come back, stopping drains, new ones join, and a second start is refused."""

import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.failure import Failure
from ops.local.processes import ProcessSpec
from ops.local.render import supervisor_config
from ops.local.supervisor import ProcessInfo, ProcessState, Supervisor
from ops.state import StateDir, write_private

# Says when it is told to stop, and ends half a second later: a drain.
DRAINING = "trap 'echo draining; sleep 0.3; exit 0' TERM; echo started; while :; do sleep 0.05; done"


def spec(name: str, script: str = DRAINING) -> ProcessSpec:
    return ProcessSpec(name, ("/bin/sh", "-c", script), {}, None, 20.0)


def configure(state: StateDir, *specs: ProcessSpec) -> None:
    for one in specs:
        write_private(state.run / f"{one.name}.sh", one.script())
    write_private(state.supervisor_config, supervisor_config(state, specs))


def eventually(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.02)


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path / "s")
    state.create()
    return state


@pytest.fixture
def supervisor(state: StateDir) -> Iterator[Supervisor]:
    configure(state, spec("one-0"))
    supervisor = Supervisor(state)
    assert not supervisor.alive()
    supervisor.start()
    yield supervisor
    supervisor.shutdown(40.0)
    assert not supervisor.alive()


def named(supervisor: Supervisor, name: str) -> ProcessInfo:
    return next(process for process in supervisor.processes() if process.name == name)


def ended_early(process: ProcessInfo) -> bool:
    return process.state in (ProcessState.BACKOFF, ProcessState.FATAL) and "Exited too quickly" in process.problem


def test_a_killed_process_is_started_again(supervisor: Supervisor) -> None:
    eventually(lambda: named(supervisor, "one-0").state is ProcessState.RUNNING)
    before = named(supervisor, "one-0").pid
    os.kill(before, signal.SIGKILL)
    eventually(lambda: named(supervisor, "one-0").pid not in (0, before))


def test_stopping_waits_for_the_drain(supervisor: Supervisor, state: StateDir) -> None:
    eventually(lambda: "started" in state.log("one-0").read_text())
    supervisor.stop_processes(["one-0"], 30.0)
    assert named(supervisor, "one-0").state is ProcessState.STOPPED
    assert "draining" in state.log("one-0").read_text()


def test_processes_join_and_leave_while_others_run(supervisor: Supervisor, state: StateDir) -> None:
    eventually(lambda: named(supervisor, "one-0").state is ProcessState.RUNNING)
    pid = named(supervisor, "one-0").pid
    configure(state, spec("one-0"), spec("one-1"))
    assert supervisor.apply_config() == (["one-1"], [])
    eventually(lambda: named(supervisor, "one-1").state is ProcessState.RUNNING)
    supervisor.stop_processes(["one-1"], 30.0)
    configure(state, spec("one-0"))
    assert supervisor.apply_config() == ([], ["one-1"])
    assert [process.name for process in supervisor.processes()] == ["one-0"]
    assert named(supervisor, "one-0").pid == pid


def test_a_process_that_cannot_start_is_given_up_in_words(state: StateDir) -> None:
    configure(state, spec("bad-0", f"echo {shlex.quote('no such setting')}; exit 64"))
    supervisor = Supervisor(state)
    supervisor.start()
    try:
        # Both in one look: it is started again a second later, and then has no problem for a moment.
        eventually(lambda: ended_early(named(supervisor, "bad-0")))
        eventually(lambda: "no such setting" in state.log("bad-0").read_text())
    finally:
        supervisor.shutdown(40.0)


def test_without_a_supervisor_a_command_says_what_to_do(state: StateDir) -> None:
    supervisor = Supervisor(state)
    assert not supervisor.alive()
    with pytest.raises(Failure, match="no mesh is running") as caught:
        supervisor.processes()
    assert "headrace up" in caught.value.next_step
    supervisor.shutdown(1.0)
