"""`headrace chat` in a terminal: answers stream, ctrl-C cancels the answer, not the program."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.mesh_under_test import ROOT, Mesh


class Terminal:
    """A program behind a terminal: what it showed, and keys for it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._shown = ""

    def until(self, text: str, seconds: float = 20.0) -> None:
        """Return when the text was shown after what was waited for before."""
        deadline = time.monotonic() + seconds
        os.set_blocking(self._handle, False)
        while text not in self._shown:
            assert time.monotonic() < deadline, f"{text!r} was not shown; {self._shown!r} was"
            try:
                self._shown += os.read(self._handle, 65536).decode(errors="replace")
            except BlockingIOError:
                time.sleep(0.02)
        self._shown = self._shown.split(text, 1)[1]

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._handle, keys)


@contextmanager
def chatting(mesh: Mesh, model: str) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ops", "--state-dir", str(mesh.state), "chat", "--model", model]
    env = {**os.environ, "TERM": "dumb"}
    # Tests that run in the background ignore ctrl-C, and so would what they start; a handler is not inherited.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        program = subprocess.Popen(
            command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=env
        )
    finally:
        signal.signal(signal.SIGINT, before)
    os.close(theirs)
    try:
        yield Terminal(ours), program
    finally:
        program.kill()
        program.wait()
        os.close(ours)


def test_ctrl_c_cancels_the_answer_and_the_conversation_goes_on(mesh: Mesh) -> None:
    with chatting(mesh, "endless") as (terminal, program):
        terminal.until("> ")
        terminal.type(b"say something long\n")
        # One of its words; the answer itself would take minutes.
        terminal.until(" the")
        # What the terminal sends its foreground program on ctrl-C.
        program.send_signal(signal.SIGINT)
        terminal.until("cancelled")
        terminal.until("> ")
        terminal.type(b"/reset\n")
        terminal.until("forgotten")
        terminal.type(b"/nonsense\n")
        terminal.until("no command /nonsense")
        terminal.type(b"/exit\n")
        assert program.wait(30) == 0
