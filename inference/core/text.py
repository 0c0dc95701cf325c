"""What stands between text and token ids: a tokenizer, and the model's chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from inference.core.templating import ChatTemplate, Rendered, Turn


class Tokenizer(Protocol):
    """A model's vocabulary. Safe to call from any thread."""

    @property
    def vocab_size(self) -> int:
        """Ids run from 0 to this, exclusive."""
        ...

    @property
    def control(self) -> Mapping[str, int]:
        """The control tokens by their text, for example "<|im_end|>". Never produced by `encode`."""
        ...

    @property
    def prefix(self) -> tuple[int, ...]:
        """What the model wants before raw text: its beginning-of-text token, or nothing."""
        ...

    def encode(self, text: str, *, first: bool) -> list[int]:
        """The tokens of plain text; a control token's text in it is spelt out, not obeyed.

        `first` says that the text stands at the very beginning, where some vocabularies put a space.
        """
        ...

    def token_bytes(self, token: int) -> bytes:
        """The exact bytes that a token adds to the text.

        None for control tokens, nor for ids past the vocabulary, which models with padded tables have.
        """
        ...


@dataclass(frozen=True, slots=True)
class TextModel:
    """A model's text side. `template` is None for a model that was never taught to chat."""

    tokenizer: Tokenizer
    template: ChatTemplate | None

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Raw text as the model wants it, with its beginning-of-text token where it has one."""
        return (*self.tokenizer.prefix, *self.tokenizer.encode(text, first=True))

    def encode_chat(self, turns: list[Turn]) -> tuple[int, ...]:
        """A conversation, ready to be answered.

        Raises TemplateError where the template refuses it, and ValueError where there is none.
        """
        if self.template is None:
            raise ValueError("this model has no chat template")
        ids: list[int] = []
        for piece in self.template.render(turns):
            if piece.control:
                ids.append(self.tokenizer.control[piece.text])
            else:
                ids += self.tokenizer.encode(piece.text, first=not ids)
        return tuple(ids)


__all__ = ["ChatTemplate", "Rendered", "TextModel", "Tokenizer", "Turn"]
