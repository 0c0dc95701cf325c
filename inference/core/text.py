"""What stands between text and token ids: a tokenizer, and the model's chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from inference.core.templating import ChatTemplate, Rendered, Turn
from inference.core.tool_calls.formats import Format, format_of


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

        None for control tokens, except for those that calls of tools are spelt with (tool_calls.formats.MARKERS), nor
        for ids past the vocabulary, which models with padded tables have.
        """
        ...


@dataclass(frozen=True, slots=True)
class TextModel:
    """A model's text side. `template` is None for a model that was never taught to chat.

    `tool_template` is the one for conversations with tools, of models that have two.
    """

    tokenizer: Tokenizer
    template: ChatTemplate | None
    tool_template: ChatTemplate | None = None

    @property
    def calls(self) -> Format:
        """How the model writes calls of tools."""
        template = self.tool_template or self.template
        return format_of(template.source if template is not None else "")

    def takes_tools(self, *, given: bool) -> bool:
        """Whether the template itself describes tools, where some are `given`, and writes calls and their answers."""
        template = self._template_for(given=given)
        return template is not None and template.takes_tools

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Raw text as the model wants it, with its beginning-of-text token where it has one."""
        return (*self.tokenizer.prefix, *self.tokenizer.encode(text, first=True))

    def encode_chat(self, turns: list[Turn], tools: list[dict[str, Any]] | None = None) -> tuple[int, ...]:
        """A conversation, ready to be answered; `tools` as OpenAI writes them, for a template that takes them.

        Raises TemplateError where the template refuses it, and ValueError where there is none.
        """
        template = self._template_for(given=bool(tools))
        if template is None:
            raise ValueError("this model has no chat template")
        ids: list[int] = []
        for piece in template.render(turns, tools):
            if piece.control:
                ids.append(self.tokenizer.control[piece.text])
            else:
                ids += self.tokenizer.encode(piece.text, first=not ids)
        return tuple(ids)

    def _template_for(self, *, given: bool) -> ChatTemplate | None:
        return self.tool_template if given and self.tool_template is not None else self.template


__all__ = ["ChatTemplate", "Rendered", "TextModel", "Tokenizer", "Turn"]
