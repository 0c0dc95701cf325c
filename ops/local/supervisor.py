"""The supervisor that local processes run under: supervisord, spoken to over its Unix socket."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import psutil
from supervisor.xmlrpc import SupervisorTransport

from ops.failure import ExitCode, Failure
from ops.state import CHECKOUT, StateDir

# supervisord forks, binds its socket and answers within a fraction of this.
_START_DEADLINE_S: Final = 15.0
_POLL_S: Final = 0.05
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
# XML-RPC faults that mean "already so".
_ALREADY: Final = {60, 70, 90}


class ProcessState(StrEnum):
    """supervisord's names of a process's states."""

    STOPPED = "STOPPED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    # It ended too early and is started again in a moment.
    BACKOFF = "BACKOFF"
    STOPPING = "STOPPING"
    EXITED = "EXITED"
    # It ended too early too often; nobody starts it again.
    FATAL = "FATAL"
    UNKNOWN = "UNKNOWN"


_ENDED: Final = (ProcessState.STOPPED, ProcessState.EXITED, ProcessState.FATAL)


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process as the supervisor sees it. `started` is in seconds since the epoch; 0 when never."""

    name: str
    state: ProcessState
    pid: int
    started: int
    # Why it is not running, in the supervisor's words.
    problem: str


class Supervisor:
    """The supervisord of one state folder."""

    def __init__(self, state: StateDir) -> None:
        self._state = state
        self._transport = SupervisorTransport(None, None, f"unix://{state.supervisor_socket}")
        # The host is never dialled: the transport goes to the socket.
        self._rpc: Any = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=self._transport).supervisor

    def alive(self) -> bool:
        """Whether it answers."""
        try:
            self._rpc.getState()
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            # A connection that failed once is of no further use.
            self._transport.close()
            return False
        return True

    def running(self) -> bool:
        """Whether the daemon is there, be it only to wait for the last process to drain."""
        return self._daemon() is not None

    def start(self) -> None:
        """Start the daemon, which starts every process. Raises Failure where it does not come up.

        SIGTERM and ctrl-C wait until it has: before that nobody could stop it.
        """
        with _signals_deferred():
            self._start()

    def _start(self) -> None:
        """Start the daemon, which starts every process of its configuration. Raises Failure where it cannot."""
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._state.supervisor_config)]
        done = subprocess.run(  # noqa: S603 - our own interpreter and our own file
            command, cwd=CHECKOUT, capture_output=True, text=True, timeout=_START_DEADLINE_S, check=False
        )
        if done.returncode != 0:
            raise Failure(
                f"the supervisor does not start: {(done.stderr or done.stdout).strip()}",
                f"see {self._state.supervisor_config}",
                ExitCode.SOFTWARE,
            )
        deadline = time.monotonic() + _START_DEADLINE_S
        while not self.alive():
            if time.monotonic() > deadline:
                raise Failure("the supervisor does not answer", f"see {self._state.logs / 'supervisord.log'}")
            time.sleep(_POLL_S)

    def processes(self) -> tuple[ProcessInfo, ...]:
        """Every process. Raises Failure where the supervisor is not running."""
        return tuple(_info(entry) for entry in self._call("getAllProcessInfo"))

    def stop_processes(self, names: Sequence[str], deadline_s: float) -> None:
        """Send SIGTERM to all of them and wait until they have drained and ended. Raises Failure past the deadline."""
        for name in names:
            self._call("stopProcess", name, False)
        deadline = time.monotonic() + deadline_s
        while left := [one.name for one in self.processes() if one.name in names and one.state not in _ENDED]:
            if time.monotonic() > deadline:
                raise Failure(
                    f"{', '.join(left)} did not stop within {deadline_s:.0f} s", f"see: headrace logs {left[0]}"
                )
            time.sleep(_POLL_S)

    def apply_config(self) -> tuple[Sequence[str], Sequence[str]]:
        """Read the configuration again, start processes that are new in it; returns the names (added, removed).

        What was removed from the file has to be stopped already.
        """
        [[added, _changed, removed]] = self._call("reloadConfig")
        for name in removed:
            self._call("removeProcessGroup", name)
        for name in added:
            self._call("addProcessGroup", name)
        return added, removed

    def shutdown(self, deadline_s: float) -> None:
        """Stop every process (SIGTERM, all draining at the same time), then the daemon; return when it has ended.

        Does nothing where none is running; waits where one is stopping already.
        """
        daemon = self._daemon()
        if daemon is None:
            return
        if self.alive():
            for process in self.processes():
                self._call("stopProcess", process.name, False)
            self._call("shutdown")
        try:
            daemon.wait(deadline_s)
        except psutil.TimeoutExpired as error:
            raise Failure(
                f"the supervisor did not stop within {deadline_s:.0f} s", f"see {self._state.logs / 'supervisord.log'}"
            ) from error

    def _daemon(self) -> psutil.Process | None:
        """The daemon's process; it outlives its socket while processes drain."""
        try:
            daemon = psutil.Process(int(self._state.supervisor_pid.read_text()))
            return daemon if str(self._state.supervisor_config) in daemon.cmdline() else None
        except (OSError, ValueError, psutil.Error):
            return None

    def _call(self, method: str, *args: Any) -> Any:
        try:
            return getattr(self._rpc, method)(*args)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode in _ALREADY:
                return None
            raise Failure(
                f"the supervisor refuses {method} {' '.join(map(str, args))}: {fault.faultString}",
                f"see {self._state.logs / 'supervisord.log'}",
                ExitCode.SOFTWARE,
            ) from fault
        except (OSError, http.client.HTTPException) as error:
            self._transport.close()
            raise Failure(f"no mesh is running from {self._state.path}", "start it: headrace up") from error


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Keep the signals that come meanwhile, and handle them at the end. In the main thread only."""
    came: list[int] = []
    kept = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        for arrived in came:
            signal.raise_signal(arrived)


def _info(entry: dict[str, Any]) -> ProcessInfo:
    return ProcessInfo(
        name=entry["name"],
        state=ProcessState(entry["statename"]),
        pid=entry["pid"],
        started=entry["start"],
        problem=entry["spawnerr"],
    )
