"""Writes schemas as the rules of a grammar."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

from inference.core.port import UnsupportedConstraint

from ..numbers import MAX_MULTIPLE, decimals, digits, multiples, remainders
from ..regex import characters
from ..regex.characters import CharSet, intersection
from ..regex.json_text import RAW, SHORT
from ..regex.tree import EMPTY, NEVER, Node, Ref, alt, cat, chars, literal, optional, rep
from ..rules import Rules
from .arrays import array
from .branches import All, Branch
from .fitting import fits_branch
from .keywords import TYPES, refuse
from .objects import Context, object_of
from .reader import Reader
from .strings import string
from .values import canonical, written

# Of all schemas of one constraint.
MAX_RULES = 6_000
_WHITE, _TEXT, _REST, _RAW_REST = Ref("white"), Ref("text"), Ref("text_rest"), Ref("name_rest")
_VALUE, _OBJECT, _ARRAY = Ref("value"), Ref("object"), Ref("array")


class SchemaRules:
    """Rules of one or several schemas for one vocabulary. Its methods raise UnsupportedConstraint."""

    def __init__(self, writable: CharSet) -> None:
        self.writable = writable
        self.named: dict[str, Node] = _shared(writable)
        self._bodies: dict[Node, Ref] = {}

    def add(self, schema: Any) -> Node:
        """The node of a schema as `keywords.read_json` reads it."""
        document = _Document(self, schema)
        node = document.rule(((schema, "#"),))
        root = self.fresh()
        self.named[root.name] = node
        if root.name not in Rules(self.named, root.name).pruned().named:
            raise UnsupportedConstraint(
                f"the JSON schema at {document.dead_place()}: no value can satisfy it, because it contradicts itself "
                "or refers to itself without end"
            )
        return root

    def fresh(self) -> Ref:
        """A new name."""
        if len(self.named) >= MAX_RULES:
            raise UnsupportedConstraint(f"the JSON schema comes to more than {MAX_RULES} rules")
        ref = Ref(f"r{len(self.named)}")
        self.named[ref.name] = NEVER
        return ref

    def rule_of(self, node: Node) -> Node:
        """A rule of that body: the one that there is already, or a new one; what is short enough stays as it is."""
        if isinstance(node, Ref) or node in (EMPTY, NEVER):
            return node
        if node not in self._bodies:
            ref = self._bodies[node] = self.fresh()
            self.named[ref.name] = node
        return self._bodies[node]


def _shared(writable: CharSet) -> dict[str, Node]:
    """The rules that documents share: any value, any string, white space."""
    raw = intersection(RAW, writable)
    hexadecimal = chars(characters.of("0-9", "a-f", "A-F"))
    # Halves of surrogate pairs are no characters.
    low = cat([chars(characters.of("dD")), chars(characters.of("0-7")), rep(hexadecimal, 2, 2)])
    others = cat([chars(characters.of("0-9", "a-c", "e-f", "A-C", "E-F")), rep(hexadecimal, 3, 3)])
    code = cat([literal("u"), alt([low, others])])
    escape = cat([literal("\\"), alt([chars(characters.of(*SHORT.values(), "/")), code])])
    quote, separator = literal('"'), cat([literal(","), _WHITE])
    entry = cat([_TEXT, literal(":"), _WHITE, _VALUE])
    return {
        # No more than one: a small model draws nothing else once it has begun.
        "white": optional(chars(characters.of(" \n\t"))),
        "text": cat([quote, _REST]),
        "text_rest": alt([quote, cat([chars(raw), _REST]), cat([escape, _REST])]),
        "name_rest": cat([rep(chars(raw), 0, None), quote]),
        "value": alt([_TEXT, Ref("number"), _OBJECT, _ARRAY, literal("true"), literal("false"), literal("null")]),
        "number": decimals_anyhow(),
        "object": cat(
            [literal("{"), _WHITE, optional(cat([entry, rep(cat([separator, entry]), 0, None), _WHITE])), literal("}")]
        ),
        "array": cat(
            [
                literal("["),
                _WHITE,
                optional(cat([_VALUE, rep(cat([separator, _VALUE]), 0, None), _WHITE])),
                literal("]"),
            ]
        ),
    }


def decimals_anyhow() -> Node:
    """Any number."""
    return decimals(Branch("").bounds, whole=False)


class _Document:
    """One schema and its references."""

    def __init__(self, rules: SchemaRules, root: Any) -> None:
        self._rules = rules
        self._reader = Reader(root)
        self._known: dict[str, Node] = {}
        self._places: dict[str, str] = {}
        self._context = Context(
            self._reader, rules.writable, self.rule, rules.rule_of, self._literal, _WHITE, _TEXT, _RAW_REST
        )

    def rule(self, schemas: All) -> Node:
        """The node of what satisfies all the schemas."""
        if all(schema is True for schema, _ in schemas):
            return _VALUE
        key = json.dumps([schema for schema, _ in schemas], default=str)
        if key in self._known:
            return self._known[key]
        place = schemas[0][1]
        ref = self._rules.fresh()
        self._known[key] = ref
        self._places[ref.name] = place
        branches = self._reader.branches(schemas, place)
        body = alt(self._branch(branch) for branch in branches)
        self._rules.named[ref.name] = body
        if isinstance(body, Ref):
            self._known[key] = body
        return self._known[key]

    def dead_place(self) -> str:
        """Where it is that no value can be, as deep within as can be told."""
        ending = Rules(self._rules.named, "").ending()
        return next((place for name, place in reversed(self._places.items()) if name not in ending), "#")

    def _branch(self, branch: Branch) -> Node:
        if branch.values is not None:
            return self._values(branch)
        if replace(branch, place="") == Branch(""):
            return _VALUE
        return alt(self._typed(name, branch) for name in TYPES if name in branch.types)

    def _values(self, branch: Branch) -> Node:
        left: list[Node] = []
        for value in {canonical(one): one for one in branch.values or ()}.values():
            fitting = fits_branch(value, branch, self._reader)
            if fitting is None:
                raise refuse("enum", branch.place, "whether its values satisfy what stands beside it cannot be told")
            if fitting:
                left.append(self._literal(value, branch.place))
        if not left:
            raise refuse("enum", branch.place, "none of its values is of what stands beside it")
        return self._rules.rule_of(alt(left))

    def _literal(self, value: Any, place: str) -> Node:
        text = written(value)
        for character in text:
            if not characters.has(self._rules.writable, character):
                raise UnsupportedConstraint(
                    f"the JSON schema at {place}: needs the character {json.dumps(character)}, which no token of this "
                    "model can write"
                )
        return literal(text)

    def _typed(self, name: str, branch: Branch) -> Node:
        match name:
            case "object":
                return self._rules.rule_of(object_of(branch, self._context)) if _has_members(branch) else _OBJECT
            case "array":
                return self._rules.rule_of(array(branch, self.rule, self._rules.rule_of, _WHITE))
            case "string":
                made = string(branch, self._rules.writable, _TEXT, _REST)
                return self._rules.rule_of(made)
            case "boolean":
                return alt([literal("true"), literal("false")])
            case "null":
                return literal("null")
            case _:
                return self._number(branch, whole=name == "integer")

    def _number(self, branch: Branch, *, whole: bool) -> Node:
        made = decimals(branch.bounds, whole=whole) if branch.multiple is None else self._multiple(branch)
        if made == NEVER:
            raise refuse("minimum", branch.place, "no number of the type lies between it and the maximum")
        return self._rules.rule_of(made)

    def _multiple(self, branch: Branch) -> Node:
        of, bounds = branch.multiple or Decimal(1), branch.bounds
        if of != int(of) or of > MAX_MULTIPLE:
            raise refuse("multipleOf", branch.place, f"must be a whole number from 1 to {MAX_MULTIPLE}")
        listed = multiples(int(of), bounds)
        if listed is not None:
            return listed
        if bounds.high is not None or not (bounds.low is None or 0 <= bounds.low <= of):
            raise refuse("multipleOf", branch.place, "cannot be held to together with such a 'minimum' or 'maximum'")
        name = f"multiple_{int(of)}"
        if f"{name}_0" not in self._rules.named:
            self._rules.named |= remainders(int(of), name)
        positive = alt(cat([digits(first, first), Ref(f"{name}_{first % int(of)}")]) for first in range(1, 10))
        if bounds.low is None:
            return cat([optional(literal("-")), alt([literal("0"), positive])])
        without_zero = not bounds.has(Decimal(0))
        if bounds.low == of and bounds.above:
            raise refuse("multipleOf", branch.place, "cannot be held to together with such an 'exclusiveMinimum'")
        return positive if without_zero else alt([literal("0"), positive])


def _has_members(branch: Branch) -> bool:
    """Whether it says anything of its members."""
    said = (branch.listed, branch.required, branch.pattern_properties, branch.names)
    return any(said) or branch.additional is not None or branch.closed or branch.members != (0, None)


def schema_rules(schema: Any, writable: CharSet) -> Rules:
    """The grammar of one schema as `keywords.read_json` reads it. Raises UnsupportedConstraint."""
    rules = SchemaRules(writable)
    root = rules.add(schema)
    return Rules(rules.named | {"root": root}).pruned()
