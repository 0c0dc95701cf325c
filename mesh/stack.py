"""The stack file: which services run, how many replicas each has, and on which ports.

It is read by the control plane (where replicas are) and by the operator's command (what to start), and rewritten by
scaling. Replica i of a service is `<service>-<i>` and listens on each of the service's ports plus i.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from mesh.address import port_of
from mesh.stack_reader import StackReader
from mesh.yaml_source import decode, read_bytes

MAX_REPLICAS: Final = 256
MAX_SERVICES: Final = 256
_LOOPBACK: Final = "127.0.0.1"
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_ENV_NAME: Final = re.compile(r"[A-Z_][A-Z0-9_]*")
# `<service>-<i>` names a replica, and "edge" Envoy's clients.
_RESERVED: Final = re.compile(r"edge|.*-[0-9]+")


@dataclass(frozen=True, slots=True)
class Edge:
    """Where Envoy listens: for clients, and for its operator. Both are host:port."""

    listen: str
    admin: str


@dataclass(frozen=True, slots=True)
class Replica:
    """One process that the stack asks for."""

    id: str
    service: str
    index: int
    # By name; "grpc" is always there.
    ports: Mapping[str, int]

    @property
    def address(self) -> str:
        """Where it speaks gRPC, as host:port."""
        return f"{_LOOPBACK}:{self.ports['grpc']}"


@dataclass(frozen=True, slots=True)
class Service:
    """A group of replicas that are started alike."""

    name: str
    kind: str
    replicas: int
    # The ports of replica 0.
    ports: Mapping[str, int]
    env: Mapping[str, str]
    # Passed on to whoever reads the control plane's snapshot.
    metadata: Mapping[str, str]

    def each_replica(self) -> Iterator[Replica]:
        """The replicas in order."""
        for i in range(self.replicas):
            ports = {name: base + i for name, base in self.ports.items()}
            yield Replica(f"{self.name}-{i}", self.name, i, ports)


@dataclass(frozen=True, slots=True)
class Stack:
    """A whole mesh on one machine. Addresses are host:port."""

    name: str
    control: str
    # None: no edge, services are called from inside only.
    edge: Edge | None
    # Consul's agent; empty: the stack names every replica itself.
    consul: str
    services: tuple[Service, ...]

    def service(self, name: str) -> Service | None:
        """The service of that name."""
        return next((s for s in self.services if s.name == name), None)

    def each_replica(self) -> Iterator[Replica]:
        """The replicas of every service in order."""
        for service in self.services:
            yield from service.each_replica()


def load(path: Path) -> Stack:
    """Read a stack file. Raises FileErrors with everything that is wrong."""
    return parse(_text(path), str(path))


def parse(text: str, file: str = "<stack>") -> Stack:
    """Read a stack from its text; `file` is its name in errors. Raises FileErrors with everything that is wrong."""
    reader = StackReader(text, file)
    top = reader.mapping(reader.root, "the stack", ("name", "control", "services"), ("consul", "edge"))
    stack = Stack(
        name=reader.matching(top.get("name"), "name", _NAME),
        control=reader.address(top.get("control"), "control"),
        edge=_edge(reader, top["edge"]) if "edge" in top else None,
        consul=reader.address(top["consul"], "consul") if "consul" in top else "",
        services=_services(reader, top.get("services")),
    )
    if reader.is_good:
        _check_ports(reader, stack, top)
    reader.finish()
    return stack


def scale(path: Path, counts: Mapping[str, int]) -> Stack:
    """Rewrite a stack file's replica counts and return the new stack; comments and layout stay.

    The file is replaced in one step: readers see the old or the new one. Raises FileErrors and changes nothing where
    a service is unknown or the result would be wrong.
    """
    text = with_replicas(_text(path), counts, str(path))
    stack = parse(text, str(path))
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        Path(temporary).chmod(path.stat().st_mode & 0o777)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return stack


def with_replicas(text: str, counts: Mapping[str, int], file: str = "<stack>") -> str:
    """The stack's text with other replica counts. Raises FileErrors where a service is not in it."""
    reader = StackReader(text, file)
    services = reader.entries(reader.entries(reader.root, "the stack").get("services"), "services")
    edits: list[tuple[int, int, str]] = []
    for name, count in counts.items():
        node = services.get(name)
        if node is None:
            known = ", ".join(services)
            reader.problem(reader.root, f"no service {name!r}; there are: {known}")
            continue
        edits.append(_count_edit(reader, node, name, count))
    reader.finish()
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _count_edit(reader: StackReader, service: yaml.Node, name: str, count: int) -> tuple[int, int, str]:
    """The span of the text that gives the service's replica count, and what goes there."""
    present = reader.entries(service, name).get("replicas")
    if present is not None:
        return present.start_mark.index, present.end_mark.index, str(count)
    if not isinstance(service, yaml.MappingNode) or not service.value:
        reader.problem(service, f"{name}: cannot be scaled, it has no settings")
        return 0, 0, ""
    first = service.value[0][0].start_mark
    separator = ", " if service.flow_style else "\n" + " " * first.column
    return first.index, first.index, f"replicas: {count}{separator}"


def _text(path: Path) -> str:
    return decode(read_bytes(path), str(path))


def _edge(reader: StackReader, node: yaml.Node) -> Edge:
    fields = reader.mapping(node, "edge", ("listen", "admin"), ())
    edge = Edge(
        listen=reader.address(fields.get("listen"), "edge.listen"),
        admin=reader.address(fields.get("admin"), "edge.admin"),
    )
    host = edge.admin.rpartition(":")[0]
    # Envoy's admin interface can stop the process and shows everything it knows.
    if host and host not in (_LOOPBACK, "localhost", "[::1]"):
        reader.problem(fields["admin"], "edge.admin: must be on loopback")
    return edge


def _services(reader: StackReader, node: yaml.Node | None) -> tuple[Service, ...]:
    entries = reader.entries(node, "services")
    if len(entries) > MAX_SERVICES:
        reader.problem(node, f"services: at most {MAX_SERVICES}")
        return ()
    return tuple(_service(reader, name, value) for name, value in entries.items())


def _service(reader: StackReader, name: str, node: yaml.Node) -> Service:
    if not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
        reader.problem(node, f"services.{name}: not a service's name (a-z, 0-9, -; neither 'edge' nor ending in -<n>)")
    at = f"services.{name}"
    fields = reader.mapping(node, at, ("kind", "ports"), ("replicas", "env", "metadata"))
    ports = {
        port: reader.integer(value, f"{at}.ports.{port}", 1, 65535)
        for port, value in reader.entries(fields.get("ports"), f"{at}.ports").items()
    }
    if "ports" in fields and "grpc" not in ports:
        reader.problem(fields["ports"], f"{at}.ports: 'grpc' is missing")
    env = reader.texts(fields.get("env"), f"{at}.env")
    for key in env:
        if not _ENV_NAME.fullmatch(key):
            reader.problem(fields["env"], f"{at}.env: {key!r} is not a variable's name")
    return Service(
        name=name,
        kind=reader.matching(fields.get("kind"), f"{at}.kind", _NAME),
        replicas=reader.integer(fields["replicas"], f"{at}.replicas", 0, MAX_REPLICAS) if "replicas" in fields else 1,
        ports=ports,
        env=env,
        metadata=reader.texts(fields.get("metadata"), f"{at}.metadata"),
    )


def _check_ports(reader: StackReader, stack: Stack, top: Mapping[str, yaml.Node]) -> None:
    """Two listeners on one port are found here, not by whichever process starts second."""
    owners: dict[int, str] = {port_of(stack.control): "control"}
    if stack.edge:
        for name, address in (("edge.listen", stack.edge.listen), ("edge.admin", stack.edge.admin)):
            _claim(reader, top["edge"], owners, port_of(address), name)
    entries = reader.entries(top["services"], "services")
    for replica in stack.each_replica():
        for name, port in replica.ports.items():
            _claim(reader, entries[replica.service], owners, port, f"{replica.id}.{name}")


def _claim(reader: StackReader, node: yaml.Node, owners: dict[int, str], port: int, owner: str) -> None:
    if port > 65535:
        reader.problem(node, f"{owner}: port {port} does not exist")
    elif port in owners:
        reader.problem(node, f"{owner}: port {port} is taken by {owners[port]}")
    else:
        owners[port] = owner
