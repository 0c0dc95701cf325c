"""What a stack becomes on one machine: scripts that carry any value, and a configuration that supervisord reads."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from supervisor.options import ServerOptions

from mesh.stack import parse
from ops.failure import Failure
from ops.local.processes import ProcessSpec, processes
from ops.local.render import write_configuration
from ops.state import StateDir

STACK = """
name: small
control: 127.0.0.1:17000
edge: {listen: 127.0.0.1:18080, admin: 127.0.0.1:19901}
services:
  gateway: {kind: gateway, replicas: 1, ports: {grpc: 17100, http: 17150}}
  routing: {kind: router, replicas: 2, ports: {grpc: 17200, metrics: 17290},
            env: {HEADRACE_ROUTER_DRAIN_DEADLINE_S: "5"}}
  tiny: {kind: inference, replicas: 1, ports: {grpc: 17300}, env: {HEADRACE_INFERENCE_ENGINE: static}}
"""


@pytest.fixture
def specs(tmp_path: Path) -> dict[str, ProcessSpec]:
    return {spec.name: spec for spec in processes(parse(STACK), StateDir(tmp_path))}


def test_every_replica_control_and_the_edge_are_processes(specs: dict[str, ProcessSpec]) -> None:
    assert list(specs) == ["control", "gateway-0", "routing-0", "routing-1", "tiny-0", "envoy"]


def test_a_replica_knows_its_place(specs: dict[str, ProcessSpec]) -> None:
    env = specs["routing-1"].env
    assert env["HEADRACE_ROUTER_LISTEN"] == "127.0.0.1:17201"
    assert env["HEADRACE_ROUTER_REPLICA"] == "routing-1"
    assert env["HEADRACE_ROUTER_SERVICE"] == "routing"
    assert env["HEADRACE_ROUTER_METRICS_PORT"] == "17291"
    assert env["HEADRACE_ROUTER_CONTROL"] == "127.0.0.1:17000"
    assert '"id": "routing-1"' in env["GRPC_XDS_BOOTSTRAP_CONFIG"]
    assert specs["routing-1"].health == "127.0.0.1:17201"


def test_the_gateway_finds_the_router_by_the_name_that_the_stack_gives_it(specs: dict[str, ProcessSpec]) -> None:
    assert specs["gateway-0"].env["HEADRACE_GATEWAY_ROUTER"] == "xds:///routing"


def test_a_drain_gets_the_time_that_the_stack_gives_it(specs: dict[str, ProcessSpec]) -> None:
    assert specs["routing-0"].stop_wait_s < specs["tiny-0"].stop_wait_s
    assert specs["routing-0"].stop_wait_s > 2 * 5


# What an environment variable can hold: anything but NUL and what is no UTF-8.
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40)


@given(value=VALUES)
def test_a_script_carries_any_value_unchanged(value: str) -> None:
    spec = ProcessSpec("p", ("printenv", "HEADRACE_SECRET"), {"HEADRACE_SECRET": value}, None, 1.0)
    done = subprocess.run(["/bin/sh"], input=spec.script().encode(), capture_output=True, timeout=60, check=True)
    assert done.stdout == value.encode() + b"\n"


def test_supervisord_reads_it(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "with space")
    state.create()
    write_configuration(parse(STACK), state)
    options = ServerOptions()
    options.realize(["-c", str(state.supervisor_config)])
    programs = {group.name: group.process_configs[0] for group in options.process_group_configs}
    assert set(programs) == {"control", "gateway-0", "routing-0", "routing-1", "tiny-0", "envoy"}
    one = programs["tiny-0"]
    assert one.stdout_logfile == str(state.log("tiny-0"))
    assert one.stopwaitsecs >= 30
    assert one.command == f'/bin/sh "{state.run / "tiny-0.sh"}"'


def test_what_may_hold_secrets_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "s")
    state.create()
    write_configuration(parse(STACK), state)
    for path in (*state.run.iterdir(), state.supervisor_config, state.envoy_config):
        assert os.stat(path).st_mode & 0o077 == 0, path


@pytest.mark.parametrize(("name", "word"), [("s 100%", "%"), ('a"b', "%"), ("x" * 100, "too long")])
def test_a_path_that_the_supervisor_cannot_take_is_refused(tmp_path: Path, name: str, word: str) -> None:
    with pytest.raises(Failure, match=word):
        StateDir(tmp_path / name).create()
    assert not (tmp_path / name).exists()
