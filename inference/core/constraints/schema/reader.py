"""A schema as the alternatives that it comes to: references followed, combinations multiplied out."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from .apart import separated
from .branches import All, Branch, plain, product
from .keywords import MAX_DEPTH, check_shapes, pointer, refuse, resolve


class Reader:
    """Alternatives of schemas within one document. Its methods raise UnsupportedConstraint."""

    def __init__(self, root: Any) -> None:
        self._root = root

    def branches(self, schemas: All, place: str, seen: frozenset[str] = frozenset(), depth: int = 0) -> list[Branch]:
        """The alternatives of what satisfies all the schemas; none where nothing can.

        `seen` are the references that are being followed: one that leads back to itself says nothing.
        """
        found = [Branch(place)]
        for schema, at in schemas:
            found = product(found, self._of(schema, at, seen, depth), at)
        return found

    def _of(self, schema: Any, place: str, seen: frozenset[str], depth: int) -> list[Branch]:
        if isinstance(schema, bool):
            return [Branch(place)] if schema else []
        if not isinstance(schema, dict):
            raise refuse("schema", place, "is neither an object nor a boolean")
        if depth > MAX_DEPTH:
            raise refuse("schema", place, f"is nested deeper than {MAX_DEPTH}")
        check_shapes(schema, place)
        found = [plain(schema, place)]
        if "$ref" in schema:
            found = product(found, self._referred(schema["$ref"], place, seen, depth), place)
        for i, child in enumerate(schema.get("allOf", ())):
            found = product(found, self._of(child, pointer(place, "allOf", i), seen, depth + 1), place)
        if "anyOf" in schema:
            options = [self._of(c, pointer(place, "anyOf", i), seen, depth + 1) for i, c in enumerate(schema["anyOf"])]
            found = product(found, [branch for option in options for branch in option], place)
        if "oneOf" in schema:
            found = self._one_of(schema["oneOf"], found, place, seen, depth)
        return found

    def _referred(self, reference: str, place: str, seen: frozenset[str], depth: int) -> list[Branch]:
        if not (reference == "#" or reference.startswith("#/")):
            raise refuse("$ref", place, f"{reference[:80]!r} lies outside the schema")
        reference = unquote(reference)
        target = resolve(reference, self._root)
        if not isinstance(target, dict | bool):
            raise refuse("$ref", place, f"nothing is at {reference[:80]!r}")
        if reference in seen:
            raise refuse("$ref", place, "leads back to itself before anything is written")
        return self._of(target, reference, seen | {reference}, depth + 1)

    def _one_of(
        self, listed: list[Any], before: list[Branch], place: str, seen: frozenset[str], depth: int
    ) -> list[Branch]:
        options = []
        for i, child in enumerate(listed):
            options.append(product(before, self._of(child, pointer(place, "oneOf", i), seen, depth + 1), place))
        found: list[Branch] = []
        for i, option in enumerate(options):
            others = [branch for k, other in enumerate(options) if k != i for branch in other]
            for branch in option:
                alone = separated(branch, others, self)
                if alone is None:
                    raise refuse(
                        "oneOf", place, "its branches may overlap; use anyOf, or tell them apart by type or by a const"
                    )
                found.append(alone)
        return found
