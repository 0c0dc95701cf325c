"""Texts of an expression, drawn at random."""

from __future__ import annotations

from random import Random

from inference.core.constraints.regex.tree import Alt, Cat, Chars, Node, Rep


def some_text(node: Node, rng: Random) -> str:
    """A text that the tree matches; repetitions without an end come a few times."""
    match node:
        case Chars():
            low, high = rng.choice(node.of)
            return chr(rng.randint(low, high))
        case Cat():
            return "".join(some_text(part, rng) for part in node.parts)
        case Alt():
            return some_text(rng.choice(node.parts), rng)
        case Rep():
            most = node.low + 3 if node.high is None else min(node.high, node.low + 4)
            return "".join(some_text(node.node, rng) for _ in range(rng.randint(node.low, most)))
        case _:
            raise ValueError("rules have no texts of their own")
