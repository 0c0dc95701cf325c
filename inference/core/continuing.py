"""Going on from the text of an answer that somebody else began, whatever model wrote it."""

from __future__ import annotations

from headrace.common.v1 import chat_pb2
from headrace.common.v1.generation_pb2 import Generation
from headrace.inference.v1.inference_pb2 import Capabilities
from inference.core.checks import RequestError

_FIELD = "generation.resume"
_INSISTING = (chat_pb2.ToolChoice.MODE_REQUIRED, chat_pb2.ToolChoice.MODE_NAMED)


def continued_text(generation: Generation) -> str:
    """The text to go on from; empty for a fresh start, and where token ids say what was emitted."""
    return next((one.text for one in generation.resume if one.text and not one.token_ids), "")


def check_continuation(generation: Generation, can: Capabilities) -> None:
    """Check what an answer is to go on from. Raises RequestError."""
    if not generation.resume:
        return
    if not continued_text(generation):
        if not can.resume:
            raise RequestError(_FIELD, "this model does not show its tokens", capability=True)
        return
    if not can.continue_text:
        raise RequestError(_FIELD, "this model cannot go on from a text", capability=True)
    if len(generation.resume) > 1 or generation.sampling.n > 1:
        raise RequestError(_FIELD, "only an answer of one choice goes on from a text", capability=True)
    if generation.sampling.response_format.WhichOneof("format") is not None:
        raise RequestError(_FIELD, "an answer that is held to a form does not go on from a text", capability=True)
    chat = generation.prompt.chat
    if chat.tools and chat.tool_choice.mode in _INSISTING:
        raise RequestError(_FIELD, "an answer that has to call a tool does not go on from a text", capability=True)
