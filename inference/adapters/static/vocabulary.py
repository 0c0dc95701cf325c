"""The static engine's own vocabulary: words for its answers, bytes for everything else."""

from __future__ import annotations

import re

from inference.core.templating import ChatTemplate
from inference.core.text import TextModel

_CONTROL = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
# Some are more than a byte a character, so that what is made of them tests what carries it.
_WORDS = (
    *("water", "wheel", "river", "stone", "bridge", "mill", "channel", "current", "valley", "harbour", "rain", "lake"),
    *("flows", "turns", "falls", "carries", "meets", "fills", "leaves", "follows", "reaches", "crosses", "keeps"),
    *("the", "a", "and", "to", "from", "over", "under", "past", "with", "slowly", "again", "still", "café", "naïve"),
    *("Zürich", "東京", "水", "🌊"),
)
_FIRST_BYTE = len(_CONTROL)
FIRST_WORD = _FIRST_BYTE + 256
_SPELT = tuple(f" {word}".encode() for word in _WORDS)
VOCAB_SIZE = FIRST_WORD + len(_WORDS)
_ID_OF = {spelt: FIRST_WORD + i for i, spelt in enumerate(_SPELT)}
_PIECES = re.compile(b"|".join(re.escape(spelt) for spelt in sorted(_SPELT, key=len, reverse=True)) + rb"|.", re.DOTALL)
_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class StaticTokenizer:
    """See inference.core.text.Tokenizer. A word is one token, any other byte is one."""

    vocab_size = VOCAB_SIZE
    prefix: tuple[int, ...] = ()

    def __init__(self) -> None:
        self.control = {text: i for i, text in enumerate(_CONTROL)}

    def encode(self, text: str, *, first: bool) -> list[int]:
        """See Tokenizer."""
        return [_ID_OF.get(piece, _FIRST_BYTE + piece[0]) for piece in _PIECES.findall(text.encode())]

    def token_bytes(self, token: int) -> bytes:
        """See Tokenizer."""
        if token < _FIRST_BYTE or token >= VOCAB_SIZE:
            return b""
        if token < FIRST_WORD:
            return bytes([token - _FIRST_BYTE])
        return _SPELT[token - FIRST_WORD]


def load_text_model() -> TextModel:
    """The vocabulary and its chat template."""
    tokenizer = StaticTokenizer()
    return TextModel(tokenizer, ChatTemplate(_TEMPLATE, _CONTROL, {}))
