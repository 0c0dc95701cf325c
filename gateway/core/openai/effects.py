"""What a field of a request does: docs/openai-compatibility.md has a table that is made from these marks."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

# Beside a type: accepted, because answering without it is no other answer.
NO_EFFECT: Final = Meta(extra={"effect": "none"})
# Beside a type: one of our own.
OURS: Final = Meta(extra={"effect": "ours"})
# The type of a field that is known and not offered. Null means that it is not set, here as everywhere.
Unsupported = Annotated[None, Meta(description="Not offered: leave it out, or send null.", extra={"effect": "refused"})]
