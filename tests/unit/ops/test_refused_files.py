"""Why a file is refused, as found in a log's end; and who refuses it, as its contracts say it."""

from __future__ import annotations

import json
from pathlib import Path

from headrace.control.v1 import control_pb2
from headrace.router.v1 import router_pb2
from mesh.stack import parse
from ops.refused_files import RefusedFile, reasons, refused_files

_STACK = """\
name: s
control: 127.0.0.1:17000
services:
  # Nobody listens there.
  gateway: {kind: gateway, ports: {grpc: 9, http: 10}}
  router: {kind: router, replicas: 2, ports: {grpc: 17200}}
"""


def test_the_last_reason_for_that_file_counts() -> None:
    lines = [
        json.dumps({"event": "file.refused", "file": "keys", "problems": ["keys.yaml:1: old"]}),
        json.dumps({"event": "file.refused", "file": "keys", "problems": ["keys.yaml:2: new", "keys.yaml:3: too"]}),
        json.dumps({"event": "file.refused", "file": "other", "problems": ["other.yaml:1: x"]}),
        json.dumps({"event": "request", "path": '"file.refused"', "file": "keys", "problems": ["no"]}),
        'half a line with "file.refused"',
    ]
    assert reasons("\n".join(lines), "keys") == ("keys.yaml:2: new", "keys.yaml:3: too")
    assert reasons("\n".join(lines), "none") == ()
    assert reasons("", "keys") == ()


async def test_each_process_that_refuses_is_named(tmp_path: Path) -> None:
    current = control_pb2.Snapshot()
    current.sources.add(name="stack", alive=False, error="stack.yaml:3: no")
    current.sources.add(name="consul", alive=False, error="not reachable")
    states = {
        "127.0.0.1:17200": router_pb2.GetStateResponse(),
        "127.0.0.1:17201": router_pb2.GetStateResponse(config_error="router.yaml:1: a\nrouter.yaml:2: b"),
    }
    assert await refused_files(parse(_STACK), tmp_path, current, states) == (
        RefusedFile("control", "stack", ("stack.yaml:3: no",)),
        RefusedFile("router-1", "routing", ("router.yaml:1: a", "router.yaml:2: b")),
    )
