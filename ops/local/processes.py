"""What a stack is on one machine: which processes, started with which command and environment."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mesh.edge import grpc_bootstrap
from mesh.stack import Replica, Service, Stack
from ops.state import CHECKOUT, StateDir

CONTROL: Final = "control"
EDGE: Final = "envoy"
# What mesh.lifecycle.ProcessConfig defaults to; a stack file may say otherwise for a service.
_DRAIN_DEADLINE_S: Final = 30.0
_DRAIN_DELAY_S: Final = 1.0
# Beyond a drain: noticing, closing, and a machine that is busy.
_STOP_SLACK_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process: its name is a replica's id, or CONTROL or EDGE."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    # host:port of its gRPC health service; None: it has none.
    health: str | None
    # How long it may take to end after SIGTERM before it is killed, in seconds.
    stop_wait_s: float

    def script(self) -> str:
        """A shell script that becomes the process; it can be run by hand, too."""
        lines = ["#!/bin/sh", f"# {self.name}: written by `headrace up`, run by the supervisor.", "set -e"]
        lines.append(f"cd {shlex.quote(str(CHECKOUT))}")
        lines += [f"export {name}={shlex.quote(value)}" for name, value in self.env.items()]
        lines.append(f"exec {shlex.join(self.command)}")
        return "\n".join(lines) + "\n"


def processes(stack: Stack, state: StateDir) -> tuple[ProcessSpec, ...]:
    """Every process of the stack, in the order in which they are best started."""
    specs = [_control(stack, state)]
    for service in stack.services:
        specs += [_replica(stack, state, service, replica) for replica in service.each_replica()]
    if stack.edge:
        specs.append(_edge(stack, state))
    return tuple(specs)


def _control(stack: Stack, state: StateDir) -> ProcessSpec:
    env = {
        "HEADRACE_CONTROL_LISTEN": stack.control,
        "HEADRACE_CONTROL_REPLICA": CONTROL,
        "HEADRACE_CONTROL_SERVICE": CONTROL,
        "HEADRACE_CONTROL_CONSUL": stack.consul,
        "HEADRACE_CONTROL_STACK": str(state.stack),
    }
    return ProcessSpec(CONTROL, _module("mesh.control"), env, stack.control, _stop_wait("control", env))


def _replica(stack: Stack, state: StateDir, service: Service, replica: Replica) -> ProcessSpec:
    prefix = f"HEADRACE_{service.kind.upper().replace('-', '_')}_"
    env = {
        f"{prefix}LISTEN": replica.address,
        f"{prefix}REPLICA": replica.id,
        f"{prefix}SERVICE": service.name,
        f"{prefix}CONSUL": stack.consul,
        f"{prefix}METRICS_PORT": str(replica.ports.get("metrics", 0)),
        "GRPC_XDS_BOOTSTRAP_CONFIG": grpc_bootstrap(stack.control, replica.id, service.name),
        **_kind_env(stack, state, service.kind, replica),
        # What the stack file says of the service wins.
        **service.env,
    }
    return ProcessSpec(replica.id, _module(service.kind), env, replica.address, _stop_wait(service.kind, env))


def _kind_env(stack: Stack, state: StateDir, kind: str, replica: Replica) -> dict[str, str]:
    """What a service of this kind needs to know of the others."""
    if kind == "gateway":
        router = next((service.name for service in stack.services if service.kind == "router"), "router")
        return {
            "HEADRACE_GATEWAY_HTTP": f"127.0.0.1:{replica.ports['http']}",
            "HEADRACE_GATEWAY_KEYS": str(state.keys),
            "HEADRACE_GATEWAY_ROUTER": f"xds:///{router}",
            "HEADRACE_GATEWAY_CONTROL": stack.control,
        }
    if kind == "router":
        return {"HEADRACE_ROUTER_CONTROL": stack.control}
    return {}


def _edge(stack: Stack, state: StateDir) -> ProcessSpec:
    assert stack.edge is not None
    command = (*_module("ops.local.envoy"), str(state.envoy_config), stack.edge.admin, str(_DRAIN_DEADLINE_S))
    return ProcessSpec(EDGE, command, {}, None, _DRAIN_DEADLINE_S + _STOP_SLACK_S)


def _module(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name)


def _stop_wait(kind: str, env: Mapping[str, str]) -> float:
    """Long enough for a drain to run to its own deadline: the HTTP front end's first, then gRPC's."""
    deadline = float(env.get(f"HEADRACE_{kind.upper()}_DRAIN_DEADLINE_S", _DRAIN_DEADLINE_S))
    delay = float(env.get(f"HEADRACE_{kind.upper()}_DRAIN_DELAY_S", _DRAIN_DELAY_S))
    return delay + 2 * deadline + _STOP_SLACK_S
