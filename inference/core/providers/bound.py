"""How much one answer may come to before the node ends it: a provider may ignore its caller's limit, or never end."""

from __future__ import annotations

from typing import Final

from headrace.common.v1.generation_pb2 import ChoiceDelta, Sampling

# No vocabulary's tokens are that long on average, nor does any server send a token in so many pieces.
_BYTES_PER_TOKEN: Final = 64
_PIECES_PER_TOKEN: Final = 8
_SLACK_BYTES: Final = 4096
_SLACK_PIECES: Final = 1024


class Bound:
    """Of one answer. `context_length` limits its tokens where the caller does not; `most_bytes` holds in any case."""

    def __init__(self, sampling: Sampling, context_length: int, most_bytes: int) -> None:
        choices = max(1, sampling.n)
        tokens = sampling.max_tokens if sampling.HasField("max_tokens") else context_length
        self._most_bytes = min(most_bytes, choices * (tokens * _BYTES_PER_TOKEN + _SLACK_BYTES))
        self._most_pieces = choices * (tokens * _PIECES_PER_TOKEN + _SLACK_PIECES)
        self._most_tokens = choices * tokens
        self._bytes = 0

    def add(self, delta: ChoiceDelta) -> None:
        """The answer gained that."""
        self._bytes += len(delta.text) + len(delta.refusal)
        self._bytes += sum(len(call.arguments_json) + len(call.name) for call in delta.tool_calls)

    def passed(self, pieces: int) -> bool:
        """Whether the answer, which came in so many pieces, is beyond what its caller can have asked for."""
        return self._bytes > self._most_bytes or pieces > self._most_pieces

    def tokens(self, pieces: int) -> int:
        """About how many tokens were drawn, for the usage that a provider had no time to tell."""
        return min(pieces, self._most_tokens)
