"""Structural tags, xgrammar's form for text with calls of tools in it, as the rules of one grammar.

All schemas in it share what they have in common, however many tools there are. Read are the kinds that
`tool_calls/constraint.py` writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from inference.core.port import UnsupportedConstraint

from .grammar_notation import parse_grammar
from .regex.characters import CharSet
from .regex.parsing import NotHeldTo, parse
from .regex.tree import Node, Ref, alt, cat, literal, renamed, rep
from .rules import FreeText, Rules, checked
from .schema.grammar import SchemaRules
from .schema.keywords import decoded

# Of one answer: a small model may repeat its call to the end.
MAX_CALLS = 8


def tag_rules(source: str, places: Sequence[str], writable: CharSet) -> Rules:
    """The grammar of a structural tag. `places` name the schemas, expressions and grammars in it, in their order.

    Raises UnsupportedConstraint with the place of the part that is to blame.
    """
    try:
        tag = json.loads(source)
        return _Tags(places, writable).rules(tag["format"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, NotHeldTo):
            raise
        raise UnsupportedConstraint(f"structural_tag: is none: {type(error).__name__}") from error


class _Tags:
    def __init__(self, places: Sequence[str], writable: CharSet) -> None:
        self._places = iter(places)
        self._schemas = SchemaRules(writable)
        self._writable = writable
        self._grammars = 0

    def rules(self, form: dict[str, Any]) -> Rules:
        named = self._schemas.named
        match form["type"]:
            case "any_text" if len(form["excludes"]) == 1:
                return Rules({}, free=FreeText(form["excludes"][0]))
            case "triggered_tags" if form.get("stop_after_first") and len(form["triggers"]) == 1:
                (trigger,) = form["triggers"]
                named["calls"] = alt(self._node(_behind(tag, trigger)) for tag in form["tags"])
                return Rules(named, free=FreeText(trigger, "calls")).pruned()
            case _:
                named["root"] = self._node(form)
                return Rules(named).pruned()

    def _node(self, form: dict[str, Any]) -> Node:
        match form["type"]:
            case "or":
                return alt(self._node(element) for element in form["elements"])
            case "tag":
                return cat([literal(form["begin"]), self._node(form["content"]), literal(form["end"])])
            case "tags_with_separator":
                one = self._schemas.rule_of(alt(self._node(tag) for tag in form["tags"]))
                return cat([one, rep(cat([literal(form["separator"]), one]), 0, MAX_CALLS - 1)])
            case "json_schema":
                return self._placed(form, partial(self._schema, form["json_schema"]))
            case "regex":
                return self._placed(form, partial(self._regex, form["pattern"]))
            case "grammar":
                return self._placed(form, partial(self._grammar, form["grammar"]))
            case _:
                raise ValueError(f"{form['type']!r} is no kind of tag that is written here")

    def _placed(self, form: dict[str, Any], make: Callable[[], Node]) -> Node:
        place = next(self._places, "")
        try:
            return make()
        except NotHeldTo as error:
            raise UnsupportedConstraint(f"{form['type']}: {error}", place) from error
        except UnsupportedConstraint as error:
            raise UnsupportedConstraint(str(error), place) from error

    def _schema(self, schema: Any) -> Node:
        return self._schemas.add(decoded(schema))

    def _regex(self, source: str) -> Node:
        return checked(Rules({"root": parse(source).whole}), self._writable).named["root"]

    def _grammar(self, source: str) -> Node:
        """A grammar's root, its rules under names of their own."""
        self._grammars += 1
        rules = checked(parse_grammar(source), self._writable)
        for name, body in rules.named.items():
            self._schemas.named[self._name(name)] = renamed(body, self._name)
        return Ref(self._name(rules.root))

    def _name(self, name: str) -> str:
        return f"g{self._grammars}_{name}"


def _behind(tag: dict[str, Any], trigger: str) -> dict[str, Any]:
    if not tag["begin"].startswith(trigger):
        raise ValueError("a tag does not begin with what triggers it")
    return {**tag, "begin": tag["begin"].removeprefix(trigger)}
