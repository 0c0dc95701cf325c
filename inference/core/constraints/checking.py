"""Whether answers can be held to a constraint, asked without a vocabulary: for engines that compile it themselves."""

from __future__ import annotations

from inference.core.port import Constraint, ConstraintKind

from .regex.characters import ALL
from .schema.grammar import schema_rules
from .schema.keywords import read_json
from .structural_tags import tag_rules


def check(constraint: Constraint) -> None:
    """Raise UnsupportedConstraint for schemas, also those of tools, that say more than an answer can be held to."""
    if constraint.kind is ConstraintKind.JSON_SCHEMA:
        schema_rules(read_json(constraint.source), ALL)
    elif constraint.kind is ConstraintKind.STRUCTURAL_TAG:
        tag_rules(constraint.source, constraint.places, ALL)
