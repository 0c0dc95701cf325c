"""What a drill is: deploy/drills/*.yaml. The structures are those of the file; times are seconds."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from mesh.yaml_source import YamlSource
from ops.drills.provider.faults import FaultError, from_fields

Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,40}$")]
Count = Annotated[int, Meta(ge=1, le=512)]
Positive = Annotated[float, Meta(gt=0, le=600)]
NonNegative = Annotated[float, Meta(ge=0)]
Percent = Annotated[float, Meta(gt=0, le=100)]
Scalar = str | int | float | bool
# Faults of a process, faults put into the snapshot, faults of a scriptable provider, Consul out of reach, and requests.
What = Literal["kill", "stop", "abort", "delay", "provider", "partition", "requests"]
_ON_REPLICA = ("kill", "stop")


class Nodes(Struct, frozen=True, forbid_unknown_fields=True):
    """A group of nodes, by default with the static engine, whose answers follow from the question."""

    replicas: Count = 1
    # HEADRACE_INFERENCE_<NAME>.
    env: dict[str, Scalar] = {}


class ProviderNode(Struct, frozen=True, forbid_unknown_fields=True):
    """A scriptable provider, and a node that asks it."""

    answer_tokens: Count = 24
    first_token_s: NonNegative = 0.0
    token_interval_s: NonNegative = 0.01
    env: dict[str, Scalar] = {}


class StackPart(Struct, frozen=True, forbid_unknown_fields=True):
    """The mesh that the drill brings up: an edge, a gateway, routers, and these."""

    # The routing file's content, as the router reads it.
    routing: dict[str, Any]
    nodes: dict[Name, Nodes] = {}
    providers: dict[Name, ProviderNode] = {}
    routers: Count = 1
    # Replicas are found through a Consul agent of the drill's own.
    consul: bool = False


class Load(Struct, frozen=True, forbid_unknown_fields=True):
    """Callers that ask one question after the other."""

    model: str
    streams: Count = 16
    # Callers of another tenant beside them, whom a fault of one tenant's calls must not touch.
    bystanders: Annotated[int, Meta(ge=0, le=512)] = 0
    # What is asked, in turn; each answer must be the same every time.
    prompts: Annotated[tuple[str, ...], Meta(min_length=1, max_length=64)] = (
        "Question 0 of the drill: say your words.",
        "Question 1 of the drill: say your words.",
        "Question 2 of the drill: say your words.",
        "Question 3 of the drill: say your words.",
    )
    max_tokens: Count | None = None
    # Answers are taken whole, as one body, and not streamed.
    whole: bool = False
    # How long a caller waits between an answer and the next question.
    pause_s: NonNegative = 0.0
    before_s: Positive = 2.0
    during_s: Positive = 3.0
    # At most: it ends earlier once everything has been well for a while.
    after_s: Positive = 3.0
    # How often a caller asks again when the answer is an error that says so.
    client_retries: Annotated[int, Meta(ge=0, le=100)] = 0
    # When a caller gives up.
    patience_s: Positive = 20.0


class RequestPart(Struct, frozen=True, forbid_unknown_fields=True):
    """One request, not streamed, of a tenant of its own."""

    # What the user says, so many times over.
    text: str
    times: Annotated[int, Meta(ge=1, le=100_000)] = 1
    # The other fields of the chat completion.
    body: dict[str, Any] = {}
    # False: it carries no key.
    key: bool = True
    # The HTTP statuses that are right for it.
    statuses: Annotated[tuple[int, ...], Meta(min_length=1)] = (200,)


class FaultPart(Struct, frozen=True, forbid_unknown_fields=True):
    """One thing to break. It is broken when `during` begins and healed when it ends."""

    what: What
    # A replica for kill and stop; a service, a replica or "edge" for abort and delay; a provider.
    target: str = ""
    # Of abort and delay.
    percent: Percent = 100.0
    tenant: str = ""
    # A gRPC status code, of abort.
    code: Annotated[int, Meta(ge=1, le=16)] = 14
    delay_s: Positive = 1.0
    # Of a provider: see ops/drills/provider/faults.py.
    fault: dict[str, Scalar] = {}
    # Of requests: so many callers ask them in turn.
    requests: tuple[RequestPart, ...] = ()
    callers: Count = 1


class Expect(Struct, frozen=True, forbid_unknown_fields=True):
    """The limits. What is unset is measured and not judged."""

    lost: Annotated[int, Meta(ge=0)] = 0
    severed: Annotated[int, Meta(ge=0)] = 0
    # Answers whose text is not that of an undisturbed run: tokens twice, or missing.
    wrong: Annotated[int, Meta(ge=0)] = 0
    p99_during_s: Positive | None = None
    p99_after_s: Positive | None = None
    # From the fault until the target is off the path, and from its healing until it is on it again.
    eject_s: Positive | None = None
    recover_s: Positive | None = None
    # The latter over the median whole answer before the fault.
    recover_ratio: Positive | None = None
    # Attempts for each request while the fault is there.
    amplification: Positive | None = None
    cost_usd: NonNegative | None = None
    # The median first token and the median whole answer while the fault is there, over those before it.
    first_token_ratio: Positive | None = None
    answer_ratio: Positive | None = None
    # Processes that ended, whoever started them again.
    restarts: Annotated[int, Meta(ge=0)] | None = None
    min_spliced: Annotated[int, Meta(ge=0)] = 0
    # Questions of bystanders that did not end well, or took more than one attempt.
    bystanders_touched: Annotated[int, Meta(ge=0)] | None = None
    # Calls that a provider received while the fault was there.
    min_called: dict[str, int] = {}
    max_called: dict[str, int] = {}
    # Deployments whose breaker must not open.
    breaker_closed: tuple[str, ...] = ()


class Sabotage(Struct, frozen=True, forbid_unknown_fields=True):
    """What switches the safety net off, and the drill must then fail."""

    about: str
    # Dotted places in the file, and what is there instead.
    set: dict[str, Any]


class Drill(Struct, frozen=True, forbid_unknown_fields=True):
    """One drill."""

    name: Name
    about: str
    stack: StackPart
    load: Load
    faults: Annotated[tuple[FaultPart, ...], Meta(min_length=1)]
    expect: Expect
    sabotage: Sabotage
    # The drill ends itself past so many lost, severed or wrong answers.
    abort_losses: Count = 50


def read(path: Path, *, sabotaged: bool = False) -> Drill:
    """A drill from its file, with its safety net switched off where `sabotaged`. Raises FileErrors."""
    source = YamlSource.read(path)
    drill = source.convert(Drill)
    _check(drill, path, source)
    changed = copy.deepcopy(source.data)
    for place, value in drill.sabotage.set.items():
        _replace(changed, place, value, source)
    try:
        without_net = msgspec.convert(changed, Drill)
    except msgspec.ValidationError as error:
        raise source.error(("sabotage", "set"), f"makes no drill: {error}") from error
    return without_net if sabotaged else drill


def _check(drill: Drill, path: Path, source: YamlSource) -> None:
    if drill.name != path.stem:
        raise source.error(("name",), f"must be the file's: {path.stem}")
    if not drill.stack.nodes and not drill.stack.providers:
        raise source.error(("stack",), "has neither nodes nor providers")
    if both := set(drill.stack.nodes) & set(drill.stack.providers):
        raise source.error(("stack", "providers", min(both)), "is the name of nodes, too")
    for i, part in enumerate(drill.faults):
        _check_fault(drill, part, ("faults", i), source)
    if drill.expect.bystanders_touched is not None and not drill.load.bystanders:
        raise source.error(("expect", "bystanders_touched"), "the load has no bystanders")
    for field in ("min_called", "max_called"):
        for name in getattr(drill.expect, field):
            if name not in drill.stack.providers:
                raise source.error(("expect", field, name), "is no provider of the stack")


def _check_fault(drill: Drill, part: FaultPart, at: tuple[str | int, ...], source: YamlSource) -> None:
    if part.what == "partition":
        if not drill.stack.consul:
            raise source.error((*at, "what"), "needs `consul: true` in the stack")
        return
    if part.what == "requests":
        if not part.requests:
            raise source.error((*at, "requests"), "are missing: nothing is asked")
        return
    known = _targets(drill.stack, part.what)
    if part.target not in known:
        raise source.error((*at, "target"), f"{part.target!r} is not there; there are: {', '.join(sorted(known))}")
    if part.what == "provider":
        try:
            from_fields(part.fault)
        except FaultError as error:
            raise source.error((*at, "fault"), str(error)) from error


def _targets(stack: StackPart, what: What) -> set[str]:
    """What a fault of that kind can hit."""
    if what == "provider":
        return set(stack.providers)
    replicas = {f"{name}-{i}" for name, nodes in stack.nodes.items() for i in range(nodes.replicas)}
    replicas |= {f"{name}-0" for name in stack.providers}
    return replicas if what in _ON_REPLICA else replicas | {*stack.nodes, *stack.providers, "gateway", "router", "edge"}


def _replace(data: Any, place: str, value: Any, source: YamlSource) -> None:
    """Put a value where a dotted path points; its last step may be new in a mapping."""
    *way, last = place.split(".")
    at = data
    try:
        for step in way:
            at = at[int(step)] if isinstance(at, list) else at[step]
        if isinstance(at, list):
            at[int(last)] = value
        else:
            at[last] = value
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise source.error(("sabotage", "set", place), "points nowhere") from error
