"""How many tokens a text makes, by its looks. Only the model's own tokenizer knows; this is right within a third or so.

Byte-pair vocabularies of today agree in kind: a short word with the space before it is one token, a long one two or
three; digits go singly to in threes, marks likewise; a run of white space is one; a Chinese, Japanese or Korean
character is about one, and in other scripts two letters are. Fitted to SmolLM2's vocabulary; larger ones make fewer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from headrace.common.v1 import generation_pb2
from headrace.router.v1 import router_pb2

# Of a long text only so much is looked at, in windows spread over all of it.
_SAMPLE_CHARS: Final = 2048
_WINDOWS: Final = 8
# Of plain letters below this, a look costs more than it can tell: no context is so small.
_SHORT_CHARS: Final = 1024
_CHARS_PER_TOKEN: Final = 4
# Longer runs of letters are no words, and are cut up into shorter pieces.
_MAX_WORD: Final = 20
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_DIGITS: Final = re.compile(r"[0-9]+")
_MARKS: Final = re.compile(r"[!-/:-@\[-`{-~]+")
_GAPS: Final = re.compile(r"\s{2,}|[\n\t]")
_WIDE: Final = re.compile(r"[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef]")
_OTHER: Final = re.compile(r"[\u0080-\u10ff\u1200-\u2e7f\ua000-\ua95f\ua980-\uabff\ufb00-\ufeff]+")
_ASTRAL: Final = re.compile(r"[\ud800-\udfff\U00010000-\U0010ffff]")


def tokens_in(texts: Iterable[str]) -> int:
    """About how many tokens the texts make together."""
    text = "\n".join(texts)
    length = len(text)
    if length <= _SHORT_CHARS and text.isascii():
        return length // _CHARS_PER_TOKEN
    if length <= _SAMPLE_CHARS:
        return round(_tokens(text))
    size = _SAMPLE_CHARS // _WINDOWS
    step = (length - size) / (_WINDOWS - 1)
    sample = "".join(text[int(i * step) : int(i * step) + size] for i in range(_WINDOWS))
    return round(_tokens(sample) * length / len(sample))


def tokens_of(message: router_pb2.GenerateResponse) -> int:
    """How many tokens an answer's message carries: its token ids, or an estimate where a provider gives none."""
    return sum([len(delta.token_ids) or tokens_of_delta(delta) for delta in message.deltas])


def tokens_of_delta(delta: generation_pb2.ChoiceDelta) -> int:
    """An estimate, for a delta without token ids."""
    text = delta.text + delta.refusal + "".join([call.name + call.arguments_json for call in delta.tool_calls])
    # Most deltas are a token or two: their length says enough.
    return max(1, len(text) // 4 if text.isascii() else len(text)) if text else 0


def _tokens(text: str) -> float:
    count = float(
        sum([(len(word) + 8) // 9 if len(word) <= _MAX_WORD else (len(word) + 3) // 4 for word in _WORD.findall(text)])
    )
    count += sum([(len(digits) + 1) // 2 for digits in _DIGITS.findall(text)])
    count += sum([(len(marks) + 2) // 3 if len(marks) < 9 else 2 + len(marks) // 64 for marks in _MARKS.findall(text)])
    count += sum([1 + len(gap) // 64 for gap in _GAPS.findall(text)])
    if text.isascii():
        return count
    count += len(_WIDE.findall(text)) + 2 * len(_ASTRAL.findall(text))
    return count + sum([(len(letters) + 1) // 2 for letters in _OTHER.findall(text)])
