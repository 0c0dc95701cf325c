"""Grammars that answers are held to, compiled and stepped by xgrammar.

Importing this module takes about a second (xgrammar), which is why `constraints.py` does it on its own thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import torch
import xgrammar

from inference.core.grammar_schema import exact_schema, exact_tags
from inference.core.port import Constraint, ConstraintKind, UnsupportedConstraint
from inference.core.regex_size import written_out

# Longer sources compile for too long to be let in.
MAX_SOURCE_CHARS = 200_000
# Beyond these an automaton takes seconds to compile, or is not made and masks take tens of milliseconds.
_AUTOMATON_PLACES = 256
_AUTOMATON_COUNT = 128
# "[07:03:05] /project/cpp/regex_converter.cc:83: " before the words that matter.
_LOCATION = re.compile(r"^\[[\d:]+\] \S+:\d+: ")


class Compiler:
    """Compiles constraints for one vocabulary. `vocabulary[t]` holds token t's bytes, none for control tokens."""

    def __init__(self, vocabulary: Sequence[bytes], vocab_size: int, eos_ids: Sequence[int], threads: int) -> None:
        info = xgrammar.TokenizerInfo(
            list(vocabulary), xgrammar.VocabType.RAW, vocab_size=vocab_size, stop_token_ids=list(eos_ids)
        )
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=threads, cache_enabled=False)

    def compile(self, constraint: Constraint) -> xgrammar.CompiledGrammar:
        """Blocks; milliseconds to seconds. Raises UnsupportedConstraint, naming what it is about."""
        kind, source = constraint.kind, constraint.source
        if len(source) > MAX_SOURCE_CHARS:
            raise UnsupportedConstraint(f"the {kind.value} has {len(source)} characters; at most {MAX_SOURCE_CHARS}")
        compiler = self._compiler
        try:
            match kind:
                case ConstraintKind.JSON_OBJECT:
                    return compiler.compile_json_schema('{"type": "object"}', strict_mode=False)
                case ConstraintKind.JSON_SCHEMA:
                    return compiler.compile_json_schema(exact_schema(source), strict_mode=False)
                case ConstraintKind.REGEX:
                    return self._compile_regex(source)
                case ConstraintKind.GRAMMAR:
                    return compiler.compile_grammar(source)
                case ConstraintKind.STRUCTURAL_TAG:
                    return compiler.compile_structural_tag(exact_tags(source))
        except (RuntimeError, ValueError) as error:
            if isinstance(error, UnsupportedConstraint):
                raise
            raise UnsupportedConstraint(f"{kind.value}: {_LOCATION.sub('', str(error)).strip()}") from error

    def _compile_regex(self, source: str) -> xgrammar.CompiledGrammar:
        """As an automaton where that is of bounded size: as rules, counted repetitions cost milliseconds a token."""
        # Refuses what the automaton would pass over, such as looking ahead.
        rules = xgrammar.Grammar.from_regex(source)
        places, largest = written_out(source)
        if places <= _AUTOMATON_PLACES and largest <= _AUTOMATON_COUNT:
            try:
                return self._compiler.compile_grammar(f"root ::= Regex({json.dumps(source, ensure_ascii=False)})")
            except RuntimeError:
                # The automaton's dialect lacks a little of the rules'.
                pass
        return self._compiler.compile_grammar(rules)


class GrammarState:
    """How far one answer has come in its grammar."""

    def __init__(self, grammar: xgrammar.CompiledGrammar) -> None:
        self._matcher = xgrammar.GrammarMatcher(grammar)

    @property
    def ended(self) -> bool:
        """Whether the end-of-text token was accepted."""
        return bool(self._matcher.is_terminated())

    def accept(self, token: int) -> bool:
        """Take one token of the answer; False, and nothing changes, when the grammar does not allow it."""
        return not self.ended and bool(self._matcher.accept_token(token))

    def allowed(self, drafts: Sequence[int]) -> int:
        """How many of `drafts` the grammar allows one after the other, short of the end of text. Changes nothing."""
        taken = 0
        while taken < len(drafts) and self.accept(drafts[taken]):
            taken += 1
        inside = taken - self.ended
        self._matcher.rollback(taken)
        return inside

    def fill(self, words: torch.Tensor, row: int, drafts: Sequence[int]) -> None:
        """Write what may come next to row `row`, and after each of `drafts`, which must be allowed, to those after."""
        for i in range(len(drafts) + 1):
            self._matcher.fill_next_token_bitmask(words, row + i)
            if i < len(drafts):
                self._matcher.accept_token(drafts[i])
        if drafts:
            self._matcher.rollback(len(drafts))
