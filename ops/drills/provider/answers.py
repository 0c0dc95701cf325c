"""What the provider says: words that depend on the question alone, so that two answers can be compared."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from typing import Any, Final

import msgspec

_WORDS: Final = (
    *("water", "stone", "river", "wheel", "mill", "gate", "light", "copper", "valley", "bridge", "turn", "flow"),
    *("deep", "north", "quiet", "steel", "amber", "field", "spring", "channel", "race", "lock", "weir", "sluice"),
    *("pond", "reed", "bank", "ford", "rill", "dam"),
)
_MODEL_SEPARATOR: Final = "!"


def split_model(model: str) -> tuple[str, str]:
    """A model's name and the fault written behind it: `demo!cut,after=3` is ("demo", "cut,after=3")."""
    name, _, fault = model.partition(_MODEL_SEPARATOR)
    return name, fault


def pieces(body: Mapping[str, Any], choice: int, count: int) -> list[str]:
    """The answer of one choice, in the pieces in which it is streamed; the same for the same messages and seed."""
    record = [body.get("messages"), body.get("prompt"), body.get("seed"), choice]
    chosen = random.Random(hashlib.sha256(msgspec.json.encode(record)).digest())  # noqa: S311 - words, not secrets
    words = [chosen.choice(_WORDS) for _ in range(count)]
    return [word if i == 0 else f" {word}" for i, word in enumerate(words)]


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """Words in the question: the provider's idea of a token."""
    total = len(str(body.get("prompt") or "").split())
    for message in body.get("messages") or ():
        content = message.get("content") or ""
        texts = [content] if isinstance(content, str) else [part.get("text", "") for part in content]
        total += sum(len(text.split()) for text in texts)
    return total


def called_tool(body: Mapping[str, Any]) -> str | None:
    """The tool that the request insists on; None where it insists on none."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    if not tools or choice in (None, "none", "auto"):
        return None
    if isinstance(choice, dict):
        return str(choice["function"]["name"])
    return str(tools[0]["function"]["name"])
