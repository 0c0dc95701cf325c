"""Grammars that answers are held to, compiled and stepped by xgrammar.

Importing this module takes about a second (xgrammar), which is why `grammar_cache.py` does it on its own thread.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence

import torch
import xgrammar

from inference.core.constraints.grammar_cost import WRITTEN_OUT, cost, counted
from inference.core.constraints.grammar_dialect import check_grammar
from inference.core.constraints.json_schema import exact_schema
from inference.core.constraints.regex_dialect import NotHeldTo, plain
from inference.core.constraints.schema_strings import becomes_automaton
from inference.core.constraints.structural_tags import exact_tags
from inference.core.port import Constraint, ConstraintKind, UnsupportedConstraint

from .mask_probe import MASK_S, Probe
from .vocabulary_share import VocabularyShare

# Longer sources, and grammars that they turn into, are not even looked at.
MAX_SOURCE_CHARS = 200_000
MAX_GRAMMAR_CHARS = 500_000
# Walks of the vocabulary that one compile may take; 256 take half a second on two cores.
MAX_WALKS = 400
# What repetitions of any character are written out to where everything up to WRITTEN_OUT would be too much.
_SHORT = 16
# Processor seconds by which all of an answer's masks together may be later than MASK_S each.
GRACE_S = 1.0
# "[07:03:05] /project/cpp/regex_converter.cc:83: " before the words that matter.
_LOCATION = re.compile(r"^\[[\d:]+\] \S+:\d+: ")


class Compiler:
    """Compiles constraints for one vocabulary. `vocabulary[t]` holds token t's bytes, none for control tokens."""

    def __init__(self, vocabulary: Sequence[bytes], vocab_size: int, eos_ids: Sequence[int], threads: int) -> None:
        info = xgrammar.TokenizerInfo(
            list(vocabulary), xgrammar.VocabType.RAW, vocab_size=vocab_size, stop_token_ids=list(eos_ids)
        )
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=threads, cache_enabled=False)
        self._share = VocabularyShare(vocabulary)
        self._probe = Probe(vocabulary)

    def compile(self, constraint: Constraint) -> xgrammar.CompiledGrammar:
        """Blocks, for a second or two at most. Raises UnsupportedConstraint, naming what it is about."""
        kind, source = constraint.kind, constraint.source
        if len(source) > MAX_SOURCE_CHARS:
            raise UnsupportedConstraint(f"the {kind.value} has {len(source)} characters; at most {MAX_SOURCE_CHARS}")
        try:
            return self._compile(kind, source)
        except NotHeldTo as error:
            raise UnsupportedConstraint(f"{kind.value}: {error}") from error
        except (RuntimeError, ValueError) as error:
            if isinstance(error, UnsupportedConstraint):
                raise
            raise UnsupportedConstraint(f"{kind.value}: {_LOCATION.sub('', str(error)).strip()}") from error

    def _compile(self, kind: ConstraintKind, source: str) -> xgrammar.CompiledGrammar:
        match kind:
            case ConstraintKind.JSON_OBJECT:
                return self._compiler.compile_json_schema('{"type": "object"}', strict_mode=False)
            case ConstraintKind.JSON_SCHEMA:
                return self._judged(kind, xgrammar.Grammar.from_json_schema(exact_schema(source), strict_mode=False))
            case ConstraintKind.REGEX:
                return self._compile_regex(source)
            case ConstraintKind.GRAMMAR:
                check_grammar(source)
                return self._judged(kind, xgrammar.Grammar.from_ebnf(source))
            case ConstraintKind.STRUCTURAL_TAG:
                return self._judged(kind, xgrammar.Grammar.from_structural_tag(exact_tags(source)))

    def _compile_regex(self, source: str) -> xgrammar.CompiledGrammar:
        """As an automaton where that is of bounded size, else as rules, whose masks may be too slow to be let in."""
        expression = plain(source)
        rules = xgrammar.Grammar.from_regex(expression)
        if becomes_automaton(expression):
            try:
                return self._compiler.compile_grammar(f"root ::= Regex({json.dumps(expression, ensure_ascii=False)})")
            except RuntimeError:
                # The automaton's dialect lacks a little of the rules'.
                pass
        return self._judged(ConstraintKind.REGEX, rules)

    def _judged(self, kind: ConstraintKind, grammar: xgrammar.Grammar) -> xgrammar.CompiledGrammar:
        """The grammar compiled, when that and its masks take a bounded time: neither can be interrupted."""
        written = str(grammar)
        if len(written) > MAX_GRAMMAR_CHARS:
            raise NotHeldTo(f"becomes a grammar of {len(written)} characters; at most {MAX_GRAMMAR_CHARS}")
        for spelt in (WRITTEN_OUT, _SHORT):
            shorter = counted(written, spelt)
            walks = cost(shorter, self._share)
            if walks <= MAX_WALKS:
                break
        else:
            raise NotHeldTo(
                f"is too large: compiling it would walk the vocabulary {walks:.0f} times, at most {MAX_WALKS}; "
                "use fewer repetitions of many characters, or lower counts"
            )
        made = grammar if shorter == written else xgrammar.Grammar.from_ebnf(shorter)
        self._probe.check(made)
        return self._compiler.compile_grammar(made)


class GrammarState:
    """How far one answer has come in its grammar."""

    def __init__(self, grammar: xgrammar.CompiledGrammar) -> None:
        self._matcher = xgrammar.GrammarMatcher(grammar)
        self._late_s = 0.0

    @property
    def ended(self) -> bool:
        """Whether the end-of-text token was accepted."""
        return bool(self._matcher.is_terminated())

    @property
    def too_slow(self) -> bool:
        """Whether masks took longer than every answer beside this one should wait for."""
        return self._late_s > GRACE_S

    def accept(self, token: int) -> bool:
        """Take one token of the answer; False, and nothing changes, when the grammar does not allow it."""
        return not self.ended and bool(self._matcher.accept_token(token))

    def allowed(self, drafts: Sequence[int]) -> int:
        """How many of `drafts` the grammar allows one after the other, short of the end of text. Changes nothing."""
        taken = 0
        try:
            while taken < len(drafts) and self.accept(drafts[taken]):
                taken += 1
            return taken - self.ended
        finally:
            self._matcher.rollback(taken)

    def fill(self, words: torch.Tensor, row: int, drafts: Sequence[int]) -> None:
        """Write what may come next to row `row`, and after each of `drafts`, which must be allowed, to those after."""
        began = time.thread_time()
        for i in range(len(drafts) + 1):
            self._matcher.fill_next_token_bitmask(words, row + i)
            if i < len(drafts):
                self._matcher.accept_token(drafts[i])
        if drafts:
            self._matcher.rollback(len(drafts))
        took = time.thread_time() - began
        self._late_s = max(0.0, self._late_s + took - MASK_S * (len(drafts) + 1))
