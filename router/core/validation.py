"""What can be wrong with a catalog as a whole, once every part of it is well-formed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from router.core.catalog import Catalog, Deployment, Model, resolve

Groups = tuple[tuple[Deployment, ...], ...]


class Problem(NamedTuple):
    """One mistake. `path` leads to it in the file, for example ("models", 0, "chain", 1)."""

    path: tuple[str | int, ...]
    reason: str


def problems_of(catalog: Catalog) -> list[Problem]:
    """Every mistake that no single part shows; empty when the catalog can be used."""
    found = [*_names(catalog), *_references(catalog), *_cycles(catalog)]
    # What follows walks the chains, which must lead somewhere first.
    return found or [*_chains(catalog), *_options(catalog)]


def _names(catalog: Catalog) -> Iterator[Problem]:
    yield from _distinct("deployments", [d.name for d in catalog.deployments])
    # A model may bear the name of a deployment: in a chain the name then means the deployment.
    yield from _distinct("models", [m.name for m in catalog.models])


def _distinct(kind: str, names: list[str]) -> Iterator[Problem]:
    if not names:
        yield Problem((kind,), "at least one is needed")
    for i, name in enumerate(names):
        if name in names[:i]:
            yield Problem((kind, i, "name"), f"{name!r} is defined twice")


def _references(catalog: Catalog) -> Iterator[Problem]:
    deployments = {d.name for d in catalog.deployments}
    models = {m.name for m in catalog.models}
    for i, model in enumerate(catalog.models):
        at = ("models", i)
        if not model.chain:
            yield Problem((*at, "chain"), "at least one member is needed")
        for j, member in enumerate(model.chain):
            if isinstance(member, tuple):
                yield from _group(member, deployments, (*at, "chain", j))
            elif member not in deployments and member not in models:
                yield Problem((*at, "chain", j), f"no deployment or model is called {member!r}")
        for path, name in _asked_besides(model):
            if name not in deployments:
                yield Problem((*at, *path), f"no deployment is called {name!r}")


def _group(members: tuple[str, ...], deployments: set[str], at: tuple[str | int, ...]) -> Iterator[Problem]:
    if not members:
        yield Problem(at, "an empty group can serve nothing")
    for k, name in enumerate(members):
        if name not in deployments:
            yield Problem((*at, k), f"no deployment is called {name!r}")


def _asked_besides(model: Model) -> Iterator[tuple[tuple[str, ...], str]]:
    """The deployments outside the chain that a model names, and where."""
    if model.shadow:
        yield ("shadow", "deployment"), model.shadow.deployment
    if model.cascade and model.cascade.judge:
        yield ("cascade", "judge", "deployment"), model.cascade.judge.deployment


def _cycles(catalog: Catalog) -> Iterator[Problem]:
    deployments = {d.name for d in catalog.deployments}
    models = {m.name: m for m in catalog.models}

    def links(model: Model) -> list[str]:
        return [m for m in model.chain if isinstance(m, str) and m not in deployments and m in models]

    def way_back(start: str) -> list[str] | None:
        paths, reached = [[start]], {start}
        while paths:
            path = paths.pop()
            for name in links(models[path[-1]]):
                if name == start:
                    return [*path, name]
                if name not in reached:
                    reached.add(name)
                    paths.append([*path, name])
        return None

    for i, model in enumerate(catalog.models):
        circle = way_back(model.name)
        if circle:
            yield Problem(("models", i, "chain"), f"the chain leads back to itself: {' -> '.join(circle)}")


def _chains(catalog: Catalog) -> Iterator[Problem]:
    routes = resolve(catalog)
    for i, model in enumerate(catalog.models):
        at, seen = ("models", i, "chain"), set[str]()
        for member in (d for group in routes[model.name].groups for d in group):
            if member.name in seen:
                yield Problem(at, f"{member.name!r} comes twice: it would fall back to what has just failed")
            seen.add(member.name)
            missing = sorted(model.needs - member.capabilities)
            if missing:
                yield Problem(at, f"{member.name!r} lacks what the model needs: {', '.join(missing)}")
            if model.tenants and member.tenants and not model.tenants & member.tenants:
                yield Problem(at, f"{member.name!r} serves none of the tenants that may ask for the model")
            if model.cost_cap_micro_usd and _cheapest_answer(member) > model.cost_cap_micro_usd:
                yield Problem(at, f"{member.name!r} costs more than the model's cost cap for a single token")


def _options(catalog: Catalog) -> Iterator[Problem]:
    routes = resolve(catalog)
    for i, model in enumerate(catalog.models):
        groups = routes[model.name].groups
        members = {d.name for group in groups for d in group}
        for problem in (*_extras(model, groups, members), *_strategy(model, groups, members)):
            yield Problem(("models", i, *problem.path), problem.reason)
    if catalog.retry.floor > catalog.retry.max_balance:
        yield Problem(("retry", "floor"), "larger than `max_balance`")
    if catalog.breaker.reset_s > catalog.breaker.max_reset_s:
        yield Problem(("breaker", "reset_s"), "larger than `max_reset_s`")


def _extras(model: Model, groups: Groups, members: set[str]) -> Iterator[Problem]:
    if model.cascade and len(groups) < 2:
        yield Problem(("cascade",), "a cascade needs at least two members to escalate between")
    if model.cascade and model.cascade.judge and model.cascade.window_tokens:
        yield Problem(("cascade", "judge"), "grades whole answers: leave `window_tokens` at 0")
    if model.shadow and model.shadow.deployment in members:
        yield Problem(("shadow", "deployment"), "already in the chain: it would be asked twice")


def _strategy(model: Model, groups: Groups, members: set[str]) -> Iterator[Problem]:
    if (model.strategy == "keyword") != bool(model.keywords):
        yield Problem(("keywords",), "the keyword strategy and its rules need each other")
    for j, rule in enumerate(model.keywords):
        if not rule.words and not rule.task:
            yield Problem(("keywords", j), "the rule matches nothing: give words or a task")
        for k, name in enumerate(rule.use):
            if name not in members:
                yield Problem(("keywords", j, "use", k), f"{name!r} is not in the model's chain")
    if model.strategy == "weighted":
        for j, group in enumerate(groups):
            if not any(d.weight for d in group):
                yield Problem(("chain", j), "every weight is 0: nothing is chosen")


def _cheapest_answer(member: Deployment) -> float:
    return member.price.input + member.price.output
