"""A request for a chat completion, and its way into the contract."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from gateway.core.openai.chat_messages import ChatMessage, to_message
from gateway.core.openai.effects import NO_EFFECT, Unsupported
from gateway.core.openai.sampling import CommonRequest, TokenCount, check_stream_options, to_sampling
from gateway.core.openai.tools import (
    FunctionTool,
    ResponseFormat,
    ToolChoice,
    to_response_format,
    to_tool_choice,
    to_tools,
)
from headrace.common.v1.chat_pb2 import ChatPrompt, Prompt
from headrace.common.v1.generation_pb2 import Generation, Sampling
from mesh.contract_limits import MAX_MESSAGES, MAX_TOOLS, MAX_TOP_LOGPROBS
from mesh.errors import InvalidArgument


class ChatCompletionRequest(CommonRequest, kw_only=True):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[FunctionTool], Meta(min_length=1, max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    modalities: Annotated[Annotated[list[Literal["text"]], Meta(max_length=1)] | None, NO_EFFECT] = None
    prediction: Annotated[dict[str, Any] | None, NO_EFFECT, Meta(description="A hint that is not used.")] = None
    audio: Unsupported = None
    functions: Unsupported = None
    function_call: Unsupported = None
    web_search_options: Unsupported = None


def to_generation(request: ChatCompletionRequest) -> Generation:
    """The request in the contract's terms. Raises InvalidArgument, which names the field."""
    check_stream_options(request)
    messages = [to_message(message, f"messages[{i}]") for i, message in enumerate(request.messages)]
    chat = ChatPrompt(messages=messages)
    _add_tools(request, chat)
    return Generation(model=request.model, prompt=Prompt(chat=chat), sampling=_sampling(request))


def _sampling(request: ChatCompletionRequest) -> Sampling:
    sampling = to_sampling(request)
    if request.max_completion_tokens is not None:
        if request.max_tokens is not None:
            raise InvalidArgument("Give 'max_tokens' or 'max_completion_tokens', not both.", field="max_tokens")
        sampling.max_tokens = request.max_completion_tokens
    if request.logprobs:
        sampling.logprobs = True
        sampling.top_logprobs = request.top_logprobs or 0
    elif request.top_logprobs:
        raise InvalidArgument("Invalid 'top_logprobs': needs 'logprobs': true.", field="top_logprobs")
    if request.response_format is not None:
        form = to_response_format(request.response_format)
        if form is not None:
            sampling.response_format.CopyFrom(form)
    return sampling


def _add_tools(request: ChatCompletionRequest, chat: ChatPrompt) -> None:
    if request.tools is not None:
        chat.tools.extend(to_tools(request.tools))
        if request.tool_choice is not None:
            chat.tool_choice.CopyFrom(to_tool_choice(request.tool_choice, request.tools))
        if request.parallel_tool_calls is not None:
            chat.parallel_tool_calls = request.parallel_tool_calls
    elif request.tool_choice not in (None, "none", "auto"):
        raise InvalidArgument("Invalid 'tool_choice': needs 'tools'.", field="tool_choice")
