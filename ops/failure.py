"""How a command ends when it cannot do what was asked: what went wrong, what to do next, and an exit code."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the command's exit code means. Typer itself ends with 2 for a wrong command line, and 130 for ctrl-C."""

    OK = 0
    # What was asked for was done, and the answer is "no": a drill that failed, a mesh that is not healthy.
    NEGATIVE = 1
    USAGE = 2
    # A service, or the whole mesh, is not there.
    UNAVAILABLE = 69
    # A defect, or a part that misbehaves.
    SOFTWARE = 70
    # The system refused: a full disk, a folder that may not be written.
    IO = 74
    # SIGTERM, as a shell says it.
    TERMINATED = 143


class Failure(Exception):
    """Ends the command. `what` is one sentence; `next_step` says what the reader can do about it."""

    def __init__(self, what: str, next_step: str, code: ExitCode = ExitCode.UNAVAILABLE) -> None:
        super().__init__(what)
        self.what = what
        self.next_step = next_step
        self.code = code
