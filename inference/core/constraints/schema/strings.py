"""Strings of a schema, as JSON writes them."""

from __future__ import annotations

from collections.abc import Iterable

from ..regex import characters
from ..regex.characters import CharSet, intersection
from ..regex.json_text import RAW, as_json
from ..regex.limits import within
from ..regex.parsing import NotHeldTo, parse
from ..regex.tree import NEVER, Alt, Cat, Chars, Node, Ref, Rep, alt, cat, chars, literal, places, rep
from ..rules import COUNTED_FROM, MAX_COUNT, MAX_PLACES
from ..string_formats import FORMATS, format_tree
from .branches import Branch
from .keywords import MAX_LEAST, MAX_STRING, refuse

# Free names differ from those that are listed within so many characters; fewer where many are listed.
_NAME_DEPTHS = ((8, 3), (40, 2))


def string(branch: Branch, writable: CharSet, shared: Node, rest: Node) -> Node:
    """A string with its quotes. `shared` is any string, `rest` what may follow in one, with its closing quote."""
    low, high = branch.lengths
    if low > MAX_LEAST:
        raise refuse("minLength", branch.place, f"must be a whole number up to {MAX_LEAST}")
    if high is not None and high < low:
        raise refuse("maxLength", branch.place, "is less than minLength")
    formats = [name for name in branch.formats if name in FORMATS]
    if formats or branch.patterns:
        return _held(content(branch, writable))
    if (low, high) == (0, None):
        return shared
    one = chars(intersection(RAW, writable))
    if high is None:
        return cat([literal('"'), rep(one, low, low), rest])
    return cat([literal('"'), rep(one, low, high), literal('"')])


def _held(inner: Node) -> Node:
    return cat([literal('"'), inner, literal('"')])


def content(branch: Branch, writable: CharSet) -> Node:
    """What stands between the quotes of a string with a pattern or a format. Raises UnsupportedConstraint."""
    formats = [name for name in branch.formats if name in FORMATS]
    if len(formats) + len(branch.patterns) > 1:
        other = "format" if formats else "another pattern"
        raise refuse(
            "pattern" if branch.patterns else "format", branch.place, f"cannot be held to together with {other}"
        )
    if formats:
        return _limited("format", format_tree(formats[0]), branch, writable)
    try:
        tree = parse(branch.patterns[0]).meant
    except NotHeldTo as error:
        raise refuse("pattern", branch.place, str(error)) from error
    return _limited("pattern", tree, branch, writable)


def _limited(keyword: str, tree: Node, branch: Branch, writable: CharSet) -> Node:
    low, high = branch.lengths
    tree = within(tree, low, high)
    if tree == NEVER:
        raise refuse(keyword, branch.place, "nothing matches it, or nothing that has the lengths asked for beside it")
    made = as_json(tree, writable, COUNTED_FROM)
    if made == NEVER:
        raise refuse(keyword, branch.place, "needs a character that no token of this model can write")
    if keyword == "pattern":
        check_size(keyword, made, branch.place)
    return made


def check_size(keyword: str, tree: Node, place: str) -> None:
    """Raise UnsupportedConstraint for an expression that would take seconds to compile."""
    size, count = places(tree, COUNTED_FROM), group_count(tree)
    if size > MAX_PLACES or count > MAX_COUNT:
        raise refuse(
            keyword,
            place,
            f"counts to {count}, at most {MAX_COUNT}, and has {size} places when that is written out, "
            f"at most {MAX_PLACES}",
        )


def group_count(node: Node) -> int:
    """The largest number of times that anything is repeated but one class, which is counted and not written out."""
    match node:
        case Rep():
            single = isinstance(node.node, Chars) and node.low <= MAX_LEAST and (node.high or 0) <= MAX_STRING
            return 0 if single else max(node.low, node.high or 0, group_count(node.node))
        case Cat() | Alt():
            return max(map(group_count, node.parts), default=0)
        case Chars() | Ref():
            return 0


def free_name(names: Iterable[str], writable: CharSet, rest: Node) -> Node:
    """A member's name with its quotes that is none of `names`; `rest` is what may follow in it, with its quote.

    Names that begin as a listed one does are left out beyond a few characters.
    """
    listed = sorted(set(names))
    depth = next((depth for count, depth in _NAME_DEPTHS if len(listed) <= count), 1)
    return cat([literal('"'), _unlike(listed, depth, intersection(RAW, writable), rest)])


def _unlike(names: list[str], depth: int, raw: CharSet, rest: Node) -> Node:
    groups: dict[str, list[str]] = {}
    for name in names:
        if name:
            groups.setdefault(name[0], []).append(name[1:])
    begun = characters.of(*groups)
    found = [] if "" in names else [literal('"')]
    other = characters.minus(raw, begun)
    if other:
        found.append(cat([chars(other), rest]))
    for character, rests in groups.items():
        if depth > 1 and characters.has(raw, character):
            found.append(cat([literal(character), _unlike(rests, depth - 1, raw, rest)]))
    return alt(found)
