"""Grammars that answers are held to, compiled and stepped by xgrammar.

Importing this module takes about a second (xgrammar), which is why `grammar_cache.py` does it on its own thread.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import torch
import xgrammar

from inference.core.constraints.cost import walks
from inference.core.constraints.grammar_notation import parse_grammar
from inference.core.constraints.regex.parsing import NotHeldTo, parse
from inference.core.constraints.regex.tree import Ref
from inference.core.constraints.rules import WRITTEN_OUT, Rules, checked
from inference.core.constraints.schema.grammar import SchemaRules, schema_rules
from inference.core.constraints.schema.keywords import read_json
from inference.core.constraints.structural_tags import tag_rules
from inference.core.constraints.writable import writable_characters
from inference.core.port import Constraint, ConstraintKind, UnsupportedConstraint

from .mask_probe import MASK_S, Probe
from .vocabulary_share import VocabularyShare

# Longer sources, and grammars that they turn into, are not even looked at.
MAX_SOURCE_CHARS = 200_000
MAX_GRAMMAR_CHARS = 500_000
# Walks of the vocabulary that one compile may take; 256 take half a second on two cores.
MAX_WALKS = 400
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
        self._writable = writable_characters(vocabulary)

    def compile(self, constraint: Constraint) -> xgrammar.CompiledGrammar:
        """Blocks, for a second or two at most. Raises UnsupportedConstraint, naming what it is about."""
        kind, source = constraint.kind, constraint.source
        if len(source) > MAX_SOURCE_CHARS:
            raise UnsupportedConstraint(f"the {kind.value} has {len(source)} characters; at most {MAX_SOURCE_CHARS}")
        try:
            return self._judged(self._rules(constraint))
        except UnsupportedConstraint as error:
            raise UnsupportedConstraint(str(error), error.place or _place(constraint)) from error
        except NotHeldTo as error:
            raise UnsupportedConstraint(f"{kind.value}: {error}", _place(constraint)) from error
        except (RuntimeError, ValueError) as error:
            message = f"{kind.value}: {_LOCATION.sub('', str(error)).strip()}"
            raise UnsupportedConstraint(message, _place(constraint)) from error

    def _rules(self, constraint: Constraint) -> Rules:
        """The constraint's rules, without what no answer could come to an end with."""
        source = constraint.source
        match constraint.kind:
            case ConstraintKind.JSON_OBJECT:
                return Rules(SchemaRules(self._writable).named | {"root": Ref("object")}).pruned()
            case ConstraintKind.JSON_SCHEMA:
                return schema_rules(read_json(source), self._writable)
            case ConstraintKind.REGEX:
                rules = Rules({"root": parse(source).whole})
            case ConstraintKind.GRAMMAR:
                rules = parse_grammar(source)
            case ConstraintKind.STRUCTURAL_TAG:
                return tag_rules(source, constraint.places, self._writable)
        return checked(rules, self._writable)

    def _judged(self, rules: Rules) -> xgrammar.CompiledGrammar:
        """The grammar compiled, when that and its masks take a bounded time: neither can be interrupted."""
        for written_out in WRITTEN_OUT:
            taken = walks(rules, self._share, written_out)
            if taken <= MAX_WALKS:
                break
        else:
            raise NotHeldTo(
                f"is too large: compiling it would walk the vocabulary {taken:.0f} times, at most {MAX_WALKS}; "
                "use fewer repetitions of many characters, or lower counts"
            )
        text = rules.written(written_out)
        if len(text) > MAX_GRAMMAR_CHARS:
            raise NotHeldTo(f"becomes a grammar of {len(text)} characters; at most {MAX_GRAMMAR_CHARS}")
        made = xgrammar.Grammar.from_ebnf(text)
        self._probe.check(made)
        return self._compiler.compile_grammar(made)


def _place(constraint: Constraint) -> str:
    """Where it stands; nothing of several."""
    return constraint.places[0] if len(constraint.places) == 1 else ""


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
