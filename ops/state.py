"""Where a running mesh keeps what it needs: one folder per stack, so that several can run side by side."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh.stack import Stack, load
from mesh.yaml_source import FileErrors
from ops.failure import ExitCode, Failure

# Headrace runs from its checkout.
CHECKOUT: Final = Path(__file__).resolve().parent.parent
# What the kernel takes as the path of a Unix socket, with room for the suffix that supervisord appends for a moment.
_SOCKET_PATH_MAX: Final = 98


@dataclass(frozen=True, slots=True)
class StateDir:
    """The paths inside one state folder."""

    path: Path

    @property
    def stack(self) -> Path:
        """The running copy of the stack file; scaling rewrites it."""
        return self.path / "stack.yaml"

    @property
    def given(self) -> Path:
        """The stack file as it was when the mesh was started from it, and where it lies."""
        return self.path / "given.json"

    @property
    def lock(self) -> Path:
        """Held by whoever starts or scales the mesh."""
        return self.path / "headrace.lock"

    @property
    def keys(self) -> Path:
        """API keys, hashed; the gateway reads it."""
        return self.path / "keys.yaml"

    @property
    def dev_key(self) -> Path:
        """The development key as it is sent; readable by its owner only."""
        return self.path / "dev.key"

    @property
    def supervisor_config(self) -> Path:
        """What the supervisor reads."""
        return self.path / "supervisord.conf"

    @property
    def supervisor_socket(self) -> Path:
        """Where the supervisor listens."""
        return self.path / "supervisor.sock"

    @property
    def supervisor_pid(self) -> Path:
        """The supervisor's process id."""
        return self.path / "supervisord.pid"

    @property
    def envoy_config(self) -> Path:
        """Envoy's bootstrap."""
        return self.path / "envoy.yaml"

    @property
    def logs(self) -> Path:
        """One log for each process."""
        return self.path / "logs"

    @property
    def run(self) -> Path:
        """One start script for each process."""
        return self.path / "run"

    def log(self, process: str) -> Path:
        """The log of one process."""
        return self.logs / f"{process}.log"

    def create(self) -> None:
        """Make the folders. Raises Failure where the path is unfit or cannot be written."""
        if len(os.fsencode(self.supervisor_socket)) > _SOCKET_PATH_MAX:
            raise Failure(
                f"the state folder's path is too long for a Unix socket: {self.path}",
                "choose a shorter one with --state-dir or HEADRACE_STATE_DIR",
                ExitCode.USAGE,
            )
        for path in (self.path, CHECKOUT):
            # supervisord expands %(name)s in its values, in some of them twice.
            if "%" in str(path) or '"' in str(path):
                raise Failure(
                    f'the supervisor takes no path with % or " in it: {path}', "choose another", ExitCode.USAGE
                )
        try:
            for folder in (self.path, self.logs, self.run):
                folder.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o700)
        except OSError as error:
            raise Failure(
                f"cannot write the state folder {self.path}: {error.strerror}",
                "choose another with --state-dir or HEADRACE_STATE_DIR",
                ExitCode.USAGE,
            ) from error

    def load_stack(self) -> Stack:
        """The stack that was started last from here. Raises Failure where there is none."""
        if not self.stack.exists():
            raise Failure(f"no mesh was started from {self.path}", "start one: headrace up")
        return read_stack(self.stack)


def read_stack(path: Path) -> Stack:
    """Read a stack file. Raises Failure with every mistake in it."""
    try:
        return load(path)
    except FileErrors as errors:
        raise Failure(str(errors), "fix the lines named above", ExitCode.USAGE) from errors


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner can read it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            # A full disk does not say which one.
            error.filename = str(path)
        raise
