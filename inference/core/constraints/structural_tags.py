"""Structural tags, the compiler's own form for text with calls of tools in it, held to as exactly as their parts."""

from __future__ import annotations

import json
from typing import Any

from inference.core.constraints.grammar_dialect import check_grammar
from inference.core.constraints.json_schema import exact
from inference.core.constraints.regex_dialect import NotHeldTo, plain
from inference.core.port import UnsupportedConstraint


def exact_tags(source: str) -> str:
    """A structural tag with every JSON schema in it made exact, its documents written without stretches of white space.

    A small model may draw nothing but white space to the end. Raises UnsupportedConstraint as `exact_schema` does.
    """
    try:
        tags = json.loads(source)
    except ValueError as error:
        raise UnsupportedConstraint(f"structural_tag: not JSON: {error}") from error

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(child) for child in node]
        if not isinstance(node, dict):
            return node
        walked = {key: exact(child) if key in ("json_schema", "schema") else walk(child) for key, child in node.items()}
        if walked.get("type") == "json_schema":
            walked.setdefault("max_whitespace_cnt", 1)
        try:
            if walked.get("type") == "regex":
                walked["pattern"] = plain(str(node.get("pattern", "")))
            elif walked.get("type") == "grammar":
                check_grammar(str(node.get("grammar", "")))
        except NotHeldTo as error:
            raise UnsupportedConstraint(f"{walked['type']}: {error}") from error
        return walked

    return json.dumps(walk(tags))
