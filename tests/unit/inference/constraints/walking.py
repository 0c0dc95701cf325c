"""Random answers of a compiled grammar: allowed tokens drawn until the end."""

from __future__ import annotations

from random import Random

import torch
import xgrammar

from inference.adapters.torch.constraints.compiler import Compiler
from inference.core.port import Constraint, ConstraintKind

# All bytes, some tokens that cross the places where a document's parts meet, and the end of text.
TOKENS = [
    b'": "',
    b'":',
    b'", "',
    b'{"',
    b'"}',
    b"}}",
    b"[]",
    b"{}",
    b"12",
    b"00",
    b"0.0",
    b'""',
    b"\\n",
    b"abc",
    b"\xc3",
    b"\xf0\x9f",
]
VOCABULARY = [*(bytes([i]) for i in range(256)), *TOKENS, b""]
END = len(VOCABULARY) - 1
# Tokens that bring a document to its end.
_CLOSING = frozenset(i for i, token in enumerate(VOCABULARY) if token and token[-1:] in b'"}]') | {END}


def compiler() -> Compiler:
    """For the vocabulary."""
    return Compiler(VOCABULARY, len(VOCABULARY), [END], 1)


def compiled(using: Compiler, kind: str, source: str) -> xgrammar.CompiledGrammar:
    """Raises UnsupportedConstraint."""
    return using.compile(Constraint(ConstraintKind(kind), source))


def answer(grammar: xgrammar.CompiledGrammar, rng: Random, tokens: int = 400) -> bytes | None:
    """One answer that ended; None for one that went on for too long. Never one that nothing may follow."""
    matcher = xgrammar.GrammarMatcher(grammar)
    words = torch.zeros((1, -(-len(VOCABULARY) // 32)), dtype=torch.int32)
    written = b""
    for count in range(tokens):
        matcher.fill_next_token_bitmask(words)
        row = words[0].tolist()
        allowed = [i for i in range(len(VOCABULARY)) if row[i // 32] >> i % 32 & 1]
        assert allowed, f"nothing may follow {written!r}"
        if count > 30 and rng.random() < 0.7:
            allowed = [token for token in allowed if token in _CLOSING] or allowed
        token = rng.choice(allowed)
        if token == END or (END in allowed and rng.random() < 0.3):
            return written
        assert matcher.accept_token(token)
        written += VOCABULARY[token]
    return None
