"""The two kinds of requests, each with the way its answers are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from gateway.core.openai.answer import Disclosed, Heading, NameModel, Usage
from gateway.core.openai.chat_answer import ChatAnswer, ChatStream
from gateway.core.openai.chat_messages import AssistantMessage, ChatMessage, ToolMessage
from gateway.core.openai.chat_request import ChatCompletionRequest, to_generation
from gateway.core.openai.completion_answer import CompletionAnswer, CompletionStream
from gateway.core.openai.completion_request import CompletionRequest, echoes, to_generations
from gateway.core.openai.decoding import Decoder
from gateway.core.openai.errors import callers_error
from gateway.core.openai.sampling import includes_usage
from gateway.core.request_pipeline import Chunk
from gateway.core.text_checks import check_texts
from headrace.common.v1.generation_pb2 import Generation
from mesh.errors import InvalidArgument

_CHAT: Final = Decoder(ChatCompletionRequest)
_COMPLETION: Final = Decoder(CompletionRequest)


def _holds_json(message: ChatMessage) -> bool:
    return isinstance(message, ToolMessage) or (isinstance(message, AssistantMessage) and bool(message.tool_calls))


class Answer(Protocol):
    """An answer that is sent as a whole."""

    def add(self, chunk: Chunk) -> None:
        """Take a part in."""
        ...

    def encode(self, usage: Usage, disclosed: Disclosed | None) -> bytes:
        """The answer as JSON; once, at the end."""
        ...


class Stream(Protocol):
    """An answer that is sent as events."""

    def events(self, chunk: Chunk) -> bytes:
        """A part as events; empty where it has nothing for the caller."""
        ...

    def last(self, usage: Usage, disclosed: Disclosed | None) -> bytes:
        """What comes between the finish reasons and the end."""
        ...


class ApiRequest(Protocol):
    """A request that was understood."""

    # What the caller calls the prompt.
    prompt_field: ClassVar[str]

    @property
    def model(self) -> str:
        """The public name asked for."""
        ...

    @property
    def user(self) -> str:
        """The end user, or nothing."""
        ...

    @property
    def generations(self) -> list[Generation]:
        """What to ask the router, one for each prompt."""
        ...

    @property
    def streams(self) -> bool:
        """Whether the answer is wanted as events."""
        ...

    @property
    def max_tokens_field(self) -> str:
        """How the caller spelled the bound on tokens."""
        ...

    @property
    def includes_usage(self) -> bool:
        """Whether a stream is to end in its usage."""
        ...

    def answer(self, name_model: NameModel | None = None) -> Answer:
        """A fresh answer."""
        ...

    def stream(self, name_model: NameModel | None = None) -> Stream:
        """A fresh stream."""
        ...


@dataclass(slots=True)
class ChatApiRequest:
    """Implements ApiRequest for chat."""

    prompt_field: ClassVar[str] = "messages"
    request: ChatCompletionRequest
    generations: list[Generation]

    @classmethod
    def decode(cls, body: bytes) -> ChatApiRequest:
        """Read a body. Raises InvalidArgument, which names the field."""
        request = _CHAT.decode(body)
        generation = to_generation(request)
        try:
            # Most requests hold no JSON in strings, and looking for it would cost them more than decoding does.
            if request.tools or request.response_format or any(map(_holds_json, request.messages)):
                check_texts(generation)
        except InvalidArgument as error:
            raise callers_error(error, cls.prompt_field) from error
        return cls(request, [generation])

    @property
    def model(self) -> str:
        """See ApiRequest."""
        return self.request.model

    @property
    def user(self) -> str:
        """See ApiRequest."""
        return self.request.user or ""

    @property
    def streams(self) -> bool:
        """See ApiRequest."""
        return bool(self.request.stream)

    @property
    def includes_usage(self) -> bool:
        """See ApiRequest."""
        return includes_usage(self.request)

    @property
    def max_tokens_field(self) -> str:
        """See ApiRequest."""
        return "max_completion_tokens" if self.request.max_completion_tokens is not None else "max_tokens"

    def answer(self, name_model: NameModel | None = None) -> ChatAnswer:
        """See ApiRequest."""
        return ChatAnswer(Heading("chatcmpl-", self.model, name_model), self.generations[0].sampling)

    def stream(self, name_model: NameModel | None = None) -> ChatStream:
        """See ApiRequest."""
        heading, sampling = Heading("chatcmpl-", self.model, name_model), self.generations[0].sampling
        return ChatStream(heading, sampling, include_usage=self.includes_usage)


@dataclass(slots=True)
class CompletionApiRequest:
    """Implements ApiRequest for plain completions."""

    prompt_field: ClassVar[str] = "prompt"
    max_tokens_field: ClassVar[str] = "max_tokens"
    request: CompletionRequest
    generations: list[Generation]

    @classmethod
    def decode(cls, body: bytes) -> CompletionApiRequest:
        """Read a body. Raises InvalidArgument, which names the field."""
        request = _COMPLETION.decode(body)
        return cls(request, to_generations(request))

    @property
    def model(self) -> str:
        """See ApiRequest."""
        return self.request.model

    @property
    def user(self) -> str:
        """See ApiRequest."""
        return self.request.user or ""

    @property
    def streams(self) -> bool:
        """See ApiRequest."""
        return bool(self.request.stream)

    @property
    def includes_usage(self) -> bool:
        """See ApiRequest."""
        return includes_usage(self.request)

    def answer(self, name_model: NameModel | None = None) -> CompletionAnswer:
        """See ApiRequest."""
        sampling = self.generations[0].sampling
        return CompletionAnswer(
            Heading("cmpl-", self.model, name_model), sampling, len(self.generations), echoes(self.request)
        )

    def stream(self, name_model: NameModel | None = None) -> CompletionStream:
        """See ApiRequest."""
        sampling, prompts = self.generations[0].sampling, len(self.generations)
        return CompletionStream(
            Heading("cmpl-", self.model, name_model),
            sampling,
            prompts,
            echoes(self.request),
            include_usage=self.includes_usage,
        )
