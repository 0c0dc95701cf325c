"""Writing what the supervisor and the processes read: start scripts, Envoy's bootstrap, supervisord's configuration."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Final

from mesh.edge import render_bootstrap
from mesh.stack import Stack
from ops.local.processes import ProcessSpec, processes
from ops.state import CHECKOUT, StateDir, write_private

_LOG_BYTES: Final = "10MB"
_LOG_BACKUPS: Final = 3
# A process that ends within this long of its start counts as one that cannot start.
_START_S: Final = 2
# Such a process is tried again this often, after 1 s, 2 s, 3 s and so on; then it is FATAL.
_START_RETRIES: Final = 5


def write_configuration(stack: Stack, state: StateDir) -> tuple[ProcessSpec, ...]:
    """Write everything that the supervisor needs to run the stack; returns its processes."""
    specs = processes(stack, state)
    if stack.edge:
        write_private(state.envoy_config, render_bootstrap(stack, state.logs))
    for spec in specs:
        # Scripts may hold providers' keys that the stack file's `env` names.
        write_private(_script(state, spec), spec.script())
    write_private(state.supervisor_config, supervisor_config(state, specs))
    return specs


def supervisor_config(state: StateDir, specs: tuple[ProcessSpec, ...]) -> str:
    """The configuration that makes supervisord run these processes."""
    sections = [
        f"""\
; Written by `headrace up` and `headrace scale`.
[unix_http_server]
file={state.supervisor_socket}
chmod=0700

[supervisord]
directory={CHECKOUT}
logfile={state.logs / "supervisord.log"}
logfile_maxbytes={_LOG_BYTES}
logfile_backups={_LOG_BACKUPS}
pidfile={state.supervisor_pid}
childlogdir={tempfile.gettempdir()}
strip_ansi=true
umask=077
{_user()}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    ]
    sections += [_program(state, spec) for spec in specs]
    return "\n".join(sections)


def _program(state: StateDir, spec: ProcessSpec) -> str:
    return f"""\
[program:{spec.name}]
command=/bin/sh "{_script(state, spec)}"
autorestart=true
startsecs={_START_S}
startretries={_START_RETRIES}
stopsignal=TERM
stopwaitsecs={math.ceil(spec.stop_wait_s)}
killasgroup=true
redirect_stderr=true
stdout_logfile={state.log(spec.name)}
stdout_logfile_maxbytes={_LOG_BYTES}
stdout_logfile_backups={_LOG_BACKUPS}
"""


def _script(state: StateDir, spec: ProcessSpec) -> Path:
    return state.run / f"{spec.name}.sh"


def _user() -> str:
    # supervisord warns when it runs as root and nobody said that it should.
    return "user=root\n" if os.geteuid() == 0 else ""
