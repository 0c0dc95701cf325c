"""What can be routed to: deployments, and the public model names that are chains of them.

The structures are those of the routing file, so every field's meaning is said here once. Prices are US dollars per
million tokens, which is also millionths of a dollar per token. Durations are seconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

Capability = Literal[
    "chat", "completion", "tools", "vision", "json_schema", "logprobs", "resume", "seed", "continue_text"
]
Resuming = Literal["tokens", "text", "off"]
StrategyName = Literal["balanced", "cheapest", "fastest", "weighted", "keyword", "tier", "region"]
Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Count = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]


class Price(Struct, frozen=True, forbid_unknown_fields=True):
    """US dollars per million tokens."""

    input: NonNegative = 0.0
    output: NonNegative = 0.0
    # Prompt tokens read from a cache; unset: as `input`.
    cached: NonNegative | None = None


class Timers(Struct, frozen=True, forbid_unknown_fields=True):
    """Each of an attempt's silences has its own limit."""

    connect_s: Positive = 2.0
    # A node that says that it waits, or reads the prompt, is not silent: both count anew from its last word.
    headers_s: Positive = 15.0
    first_token_s: Positive = 15.0
    # Between two messages that carry something.
    gap_s: Positive = 10.0
    # Fewer tokens a second than this over the window is a failure; 0 switches the floor off.
    floor_tokens_per_s: NonNegative = 0.5
    floor_window_s: Positive = 20.0


class Deployment(Struct, frozen=True, forbid_unknown_fields=True):
    """A node group with a model on it."""

    name: Name
    # The group's name in the control plane's snapshot, and the model as its nodes call it.
    service: Name
    model: Name
    # Of the weights; unset: whatever the node says. Equal model, adapter and revision may resume one another.
    revision: str = ""
    # A LoRA adapter that its nodes have loaded; unset: the one that the caller names, or none.
    adapter: Annotated[str, Meta(max_length=128)] = ""
    price: Price = Price()
    # Prompt and answer together, in tokens; 0: whatever the node says.
    context: Annotated[int, Meta(ge=0)] = 0
    capabilities: frozenset[Capability] = frozenset({"chat", "completion"})
    region: str = ""
    tier: str = ""
    weight: NonNegative = 1.0
    # Only these tenants may be served; empty: all.
    tenants: frozenset[str] = frozenset()
    timers: Timers | None = None


class KeywordRule(Struct, frozen=True, forbid_unknown_fields=True):
    """Requests that name one of the words, or carry the label `task`, go to these deployments first."""

    use: tuple[Name, ...]
    words: tuple[Name, ...] = ()
    task: str = ""


class Shadow(Struct, frozen=True, forbid_unknown_fields=True):
    """A deployment that is asked as well, for a share of the requests, and whose answer nobody sees."""

    deployment: Name
    percent: Percent = 100.0


class Hedge(Struct, frozen=True, forbid_unknown_fields=True):
    """Ask a second replica when the first has not answered after so long; the faster one's answer is kept."""

    after_s: Positive


class Commit(Struct, frozen=True, forbid_unknown_fields=True):
    """How much of a streamed answer is held back before the caller sees any: until then a failure stays invisible."""

    tokens: Count = 1
    # Never hold longer than this after the first token.
    max_s: Positive = 2.0


class JudgeModelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A deployment that grades whole answers from 0 to 10, where the calibrated confidence leaves doubt."""

    deployment: Name
    # The lowest grade that is good enough.
    min_grade: Annotated[int, Meta(ge=1, le=10)] = 6
    # An answer with at least this confidence is kept without asking; 1: every answer is graded.
    sure: Share = 1.0
    # A judge that is later than this is not waited for, and the answer is kept.
    within_s: Positive = 10.0


class Cascade(Struct, frozen=True, forbid_unknown_fields=True):
    """Try the chain's members in turn, cheapest first, until an answer is good enough."""

    # JSON written by the calibration; relative to the routing file.
    calibration: Name
    # Tokens that are held back and judged; 0: the whole answer.
    window_tokens: Annotated[int, Meta(ge=0)] = 0
    judge: JudgeModelSettings | None = None


class Model(Struct, frozen=True, forbid_unknown_fields=True):
    """A public name. Its chain's members are tried in order; each is a deployment, several, or another model."""

    name: Name
    chain: tuple[Name | tuple[Name, ...], ...]
    strategy: StrategyName = "balanced"
    # What every member must be capable of.
    needs: frozenset[Capability] = frozenset()
    keywords: tuple[KeywordRule, ...] = ()
    # Only these tenants may ask; empty: all.
    tenants: frozenset[str] = frozenset()
    # Attempts at most for one request, and what it may cost in millionths of a dollar; 0: no cap.
    attempts: Count = 4
    # The longest Retry-After that is waited for, once, where nobody else can answer and half of the deadline is left.
    max_wait_s: NonNegative = 5.0
    cost_cap_micro_usd: Annotated[int, Meta(ge=0)] = 0
    # `whole` holds all of it, up to 4 MiB. Whatever this says, an answer whose caller takes it whole is held whole.
    commit: Commit | Literal["whole"] = Commit()
    # Answers bound to a schema: held until they are whole, or streamed and never resumed.
    structured: Literal["hold", "stream"] = "hold"
    # How a cut answer goes on elsewhere once the caller has seen a part of it. `tokens`: on a replica of the same model
    # and revision, from its token ids; `text`: that, or else on any deployment of the chain that can go on from a text;
    # `off`: not at all, a cut ends in STREAM_CUT. true is `tokens`; false is `off`, which YAML takes for it.
    resume: Resuming | bool = "tokens"
    hedge: Hedge | None = None
    shadow: Shadow | None = None
    cascade: Cascade | None = None
    # Said, and disclosed, when nothing else is left; unset: an error is.
    fallback: Annotated[str, Meta(min_length=1)] | None = None
    owned_by: str = "headrace"


def resuming_of(model: Model) -> Resuming:
    """How a model's answers are resumed, in words."""
    if isinstance(model.resume, bool):
        return "tokens" if model.resume else "off"
    return model.resume


class Breaker(Struct, frozen=True, forbid_unknown_fields=True):
    """When a replica of a deployment is taken to be down; see mesh.resilience."""

    failures: Count = 5
    reset_s: Positive = 1.0
    max_reset_s: Positive = 3.0
    probe_lease_s: Positive = 30.0


class Retry(Struct, frozen=True, forbid_unknown_fields=True):
    """The budget that the requests of a model share; see mesh.resilience."""

    ratio: Share = 0.1
    success_ratio: Share = 0.5
    floor: NonNegative = 40.0
    max_balance: NonNegative = 40.0


class Ramp(Struct, frozen=True, forbid_unknown_fields=True):
    """How a replica that is new, or has recovered, is brought up to its full share."""

    seconds: NonNegative = 3.0
    # The share it begins with.
    start: Annotated[float, Meta(gt=0, le=1)] = 0.1


class Catalog(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole routing file."""

    deployments: tuple[Deployment, ...]
    models: tuple[Model, ...]
    timers: Timers = Timers()
    breaker: Breaker = Breaker()
    retry: Retry = Retry()
    ramp: Ramp = Ramp()


class Route(Struct, frozen=True):
    """A model with its chain resolved: groups of deployments, in the order they are tried."""

    model: Model
    groups: tuple[tuple[Deployment, ...], ...]


def resolve(catalog: Catalog) -> dict[str, Route]:
    """Every model's route. The catalog has no problems; see router.core.validation."""
    deployments = {d.name: d for d in catalog.deployments}
    models = {m.name: m for m in catalog.models}

    def expand(model: Model) -> tuple[tuple[Deployment, ...], ...]:
        groups: list[tuple[Deployment, ...]] = []
        for member in model.chain:
            if isinstance(member, tuple):
                groups.append(tuple(deployments[name] for name in member))
            elif member in deployments:
                groups.append((deployments[member],))
            else:
                groups.extend(expand(models[member]))
        return tuple(groups)

    return {model.name: Route(model, expand(model)) for model in catalog.models}


def fields_of(kind: type[Struct]) -> tuple[str, ...]:
    """The names that a part of the file may have."""
    return tuple(f.name for f in msgspec.structs.fields(kind))
