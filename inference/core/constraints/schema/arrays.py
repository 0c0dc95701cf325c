"""Arrays of a schema."""

from __future__ import annotations

from collections.abc import Callable

from ..regex.tree import EMPTY, Node, Ref, cat, literal, optional, rep
from .branches import All, Branch
from .keywords import MAX_LEAST, refuse


def array(branch: Branch, rule: Callable[[All], Node], named: Callable[[Node], Node], white: Ref) -> Node:
    """An array: all that have a place of their own in it, as far as they may be there, then the others.

    `rule` gives the node of a schema, `named` makes a rule of a node. Raises UnsupportedConstraint.
    """
    low, high = branch.count
    if low > MAX_LEAST:
        raise refuse("minItems", branch.place, f"must be a whole number up to {MAX_LEAST}")
    if high is not None and high < low:
        raise refuse("maxItems", branch.place, "is less than minItems")
    if branch.unique and (high is None or high > 1):
        raise refuse("uniqueItems", branch.place, "cannot be held to, but for lists of at most one item")
    prefix = branch.prefix if high is None else branch.prefix[:high]
    separator = cat([literal(","), white])
    parts: list[Node] = [literal("["), white]
    for i, schemas in enumerate(prefix):
        parts += [separator if i else EMPTY, rule(schemas)]
    least = max(0, low - len(prefix))
    most = None if high is None else high - len(prefix)
    if most != 0 and not _shut(branch):
        item = rule(branch.items)
        parts.append(_items(item, named(cat([separator, item])), bool(prefix), least, most))
    elif least:
        raise refuse("minItems", branch.place, "is more than may be in it")
    return cat([*parts, white, literal("]")])


def _shut(branch: Branch) -> bool:
    return any(schema is False for schema, _ in branch.items)


def _items(item: Node, following: Node, behind: bool, low: int, high: int | None) -> Node:
    if behind:
        return rep(following, low, high)
    some = cat([item, rep(following, max(0, low - 1), None if high is None else high - 1)])
    return some if low else optional(some)
