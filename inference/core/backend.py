"""What building an engine gives the node: an engine of either port, and what goes with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from inference.core.chat_port import ChatEngine
from inference.core.port import Engine
from inference.core.text import TextModel


@dataclass(frozen=True, slots=True)
class TokenBackend:
    """An engine that works on token ids, and what turns text into its tokens and back (loaded on a thread)."""

    engine: Engine
    load_text: Callable[[], TextModel]
    # What the model is called where the node's settings name none.
    default_model: str


@dataclass(frozen=True, slots=True)
class ChatBackend:
    """An engine that takes messages as they are."""

    engine: ChatEngine
    default_model: str


Backend: TypeAlias = TokenBackend | ChatBackend
