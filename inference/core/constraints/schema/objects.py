"""Objects of a schema: the members that it lists, in its order, then those that it leaves free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..regex.automaton import Automaton, TooLarge
from ..regex.characters import CharSet
from ..regex.json_text import as_json
from ..regex.parsing import Expression, NotHeldTo, parse
from ..regex.tree import EMPTY, NEVER, Node, Ref, alt, cat, literal, rep
from ..rules import COUNTED_FROM
from .branches import ANYTHING, All, Branch, joined
from .fitting import fits, matches
from .keywords import refuse
from .reader import Reader
from .strings import check_size, free_name

# States that a chain of counted members may have.
MAX_STATES = 4_000


@dataclass(frozen=True, slots=True)
class Context:
    """What an object is written with: see the fields of the same names in `grammar.Document`."""

    reader: Reader
    writable: CharSet
    rule: Callable[[All], Node]
    named: Callable[[Node], Node]
    text_literal: Callable[[str, str], Node]
    white: Ref
    text: Ref
    raw_rest: Ref


@dataclass(frozen=True, slots=True)
class _Member:
    entry: Node
    required: bool


def object_of(branch: Branch, context: Context) -> Node:
    """The object. Raises UnsupportedConstraint."""
    low, high = branch.members
    if high is not None and high < low:
        raise refuse("maxProperties", branch.place, "is less than minProperties")
    members = [_listed(name, branch, context) for name in _names(branch)]
    free = context.named(_free(branch, context))
    needed = low - len(members)
    if needed > (0 if free == NEVER else 1):
        raise refuse("minProperties", branch.place, "is more than its listed members; free ones could repeat a name")
    chain = _Chain(free, context, low if low > sum(member.required for member in members) else 0, high)
    return cat([literal("{"), context.white, chain.of(members, branch.place), literal("}")])


def _names(branch: Branch) -> list[str]:
    """The names that are listed or required, in the schema's order."""
    return list(dict.fromkeys([*branch.properties, *branch.required]))


def _listed(name: str, branch: Branch, context: Context) -> _Member:
    required = name in branch.required
    fitting = fits(name, branch.names, context.reader)
    if fitting is None:
        raise refuse("propertyNames", branch.place, f"whether {name[:40]!r} is one cannot be told")
    schemas = branch.properties.get(name, ANYTHING)
    listed = name in branch.properties
    for pattern, child in branch.pattern_properties:
        found = matches(pattern, name)
        if found is None:
            _checked(pattern, branch)
            raise refuse("patternProperties", branch.place, f"whether {name[:40]!r} matches cannot be told")
        if found:
            schemas, listed = joined(schemas, child), True
    if not listed and branch.additional is not None:
        schemas = branch.additional
    key = context.text_literal(name, f"{branch.place}/properties/{name[:40]}")
    value = context.rule(schemas) if fitting else NEVER
    return _Member(cat([key, literal(":"), context.white, value]), required)


def _checked(pattern: str, branch: Branch) -> Expression:
    try:
        return parse(pattern)
    except NotHeldTo as error:
        raise refuse("patternProperties", branch.place, str(error)) from error


def _free(branch: Branch, context: Context) -> Node:
    """One member that is not listed; NEVER where there is none."""
    if branch.pattern_properties:
        return _patterned(branch, context)
    if branch.additional is None and (branch.listed or branch.required or branch.closed):
        return NEVER
    if any(schema is False for schema, _ in branch.additional or ()):
        return NEVER
    key: Node = context.text
    if branch.names != ANYTHING:
        if _names(branch):
            return NEVER
        key = _key_of(branch, context)
    elif _names(branch):
        key = free_name(_names(branch), context.writable, context.raw_rest)
    return cat([key, literal(":"), context.white, context.rule(branch.additional or ANYTHING)])


def _key_of(branch: Branch, context: Context) -> Node:
    """A name that `propertyNames` allows, with its quotes."""
    strings = (({"type": "string"}, branch.place),)
    return context.rule(joined(branch.names, strings))


def _patterned(branch: Branch, context: Context) -> Node:
    """A member whose name one pattern makes; it is what all patterns want that might match the name as well."""
    if branch.names != ANYTHING:
        raise refuse("propertyNames", branch.place, "cannot be held to together with 'patternProperties'")
    expressions = [_checked(pattern, branch) for pattern, _ in branch.pattern_properties]
    try:
        automata = [Automaton(expression.within) for expression in expressions]
    except TooLarge as error:
        raise refuse("patternProperties", branch.place, str(error)) from error
    found: list[Node] = []
    for automaton, expression in zip(automata, expressions, strict=True):
        if any(automaton.matches(name) for name in _names(branch)):
            # Its names could be listed ones again.
            continue
        schemas: All = ANYTHING
        for other, (_, child) in zip(automata, branch.pattern_properties, strict=True):
            if other is automaton or automaton.overlaps(other):
                schemas = joined(schemas, child)
        made = as_json(expression.meant, context.writable, COUNTED_FROM)
        if made == NEVER:
            raise refuse("patternProperties", branch.place, "needs a character that no token of this model can write")
        check_size("patternProperties", made, branch.place)
        key = cat([literal('"'), made, literal('":')])
        found.append(cat([key, context.white, context.rule(schemas)]))
    return alt(found)


class _Chain:
    """Members one after the other, some of them left out; counted where their number is limited."""

    def __init__(self, free: Node, context: Context, low: int, high: int | None) -> None:
        self._free = free
        self._context = context
        self._low, self._high = low, high
        # Beyond it, it does not matter how many there were.
        self._cap = max(low, 1, 0 if high is None else high)
        self._separator = cat([literal(","), context.white])

    def of(self, members: list[_Member], place: str) -> Node:
        """From the first on, without the brackets around."""
        counted = self._low > 0 or (self._high is not None and self._high < len(members))
        if self._high is not None and not counted and self._free == NEVER:
            self._high = None
        self._cap = min(self._cap, len(members) + 1)
        if len(members) * self._cap > MAX_STATES:
            raise refuse("maxProperties", place, f"its members come to more than {MAX_STATES} states")
        following = {count: self._tail(count) for count in range(self._cap + 1)}
        for member in reversed(members):
            following = {count: self._at(member, count, following) for count in following}
        return following[0]

    def _at(self, member: _Member, count: int, following: dict[int, Node]) -> Node:
        taken: Node = NEVER
        if self._high is None or count < self._high:
            then = following[min(count + 1, self._cap)]
            taken = cat([self._separator if count else EMPTY, member.entry, then])
        if member.required:
            return taken
        return self._context.named(alt([taken, following[count]]))

    def _tail(self, count: int) -> Node:
        ends: Node = self._context.white if count else EMPTY
        if count < self._low:
            ends = NEVER
        left = None if self._high is None else self._high - count
        # Free members may repeat a name, so that they count as one.
        if self._free == NEVER or left == 0 or count + 1 < self._low:
            return ends
        further = cat([self._separator, self._free])
        more = rep(self._context.named(further), 0, None if left is None else left - 1)
        first = cat([self._separator if count else EMPTY, self._free, more, self._context.white])
        return self._context.named(alt([ends, first]))
