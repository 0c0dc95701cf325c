"""What every translation of a request shares: fields that a provider lacks, numbers, schemas, images."""

from __future__ import annotations

import base64
import enum
import re
from typing import Any, Final

from headrace.common.v1.chat_pb2 import ContentPart, ImagePart, Message, ResponseFormat, Tool
from headrace.common.v1.generation_pb2 import Sampling
from inference.core.tool_calls.documents import NotJson, read_json, read_object
from inference.core.tool_calls.parameters import parameters as schema_of
from mesh.errors import FailedPrecondition, InvalidArgument

SAMPLING: Final = "generation.sampling"
CHAT: Final = "generation.prompt.chat"
FORMAT: Final = f"{SAMPLING}.response_format"
_DATA_URL: Final = re.compile(r"data:([a-zA-Z0-9.+/-]+);base64,(.*)", re.DOTALL)


class Unsupported(enum.Enum):
    """What to do with a sampling field that a provider has no word for."""

    REFUSE = "refuse"
    DROP = "drop"


class Lacking:
    """Keeps to the node's choice about fields that its provider does not know."""

    def __init__(self, policy: Unsupported, provider: str) -> None:
        self._policy = policy
        self._provider = provider

    def check(self, sampling: Sampling, neutral: dict[str, Any]) -> None:
        """Raise FailedPrecondition if one of these fields is set to something else than its neutral value."""
        for name, value in neutral.items():
            given = getattr(sampling, name)
            if given and number(given) != value:
                self.lacks(f"{SAMPLING}.{name}")

    def lacks(self, field: str) -> None:
        """The caller asked for `field`. Raises FailedPrecondition unless it may be dropped."""
        if self._policy is Unsupported.REFUSE:
            self.never(field)

    def never(self, field: str) -> None:
        """The caller asked for `field`, and an answer without it would be another one. Raises FailedPrecondition."""
        message = f"{field}: {self._provider} has no such setting"
        raise FailedPrecondition(message, reason="UNSUPPORTED_BY_PROVIDER", field=field)


def number(value: Any) -> Any:
    """A number as the caller wrote it: contracts carry floats of 32 bits, and 0.7 should not read 0.699999988."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


def optional(sampling: Sampling, name: str) -> Any:
    """A field of the sampling that may be unset; None where it is."""
    return number(getattr(sampling, name)) if sampling.HasField(name) else None  # type: ignore[arg-type]  # any field


def seed(sampling: Sampling, bits: int) -> int | None:
    """The seed, folded into the provider's `bits`: the same for the same seed."""
    return sampling.seed % (1 << bits) if sampling.HasField("seed") else None


def without_none(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something."""
    return {name: value for name, value in fields.items() if value is not None}


def parameters(tool: Tool, place: int) -> dict[str, Any]:
    """The schema of the tool at that place. Raises InvalidArgument where it is not an object in JSON."""
    try:
        return schema_of(tool)
    except ValueError as error:
        field = f"{CHAT}.tools[{place}].parameters_json"
        raise InvalidArgument(f"{field}: {error}", field=field) from error


def response_schema(form: ResponseFormat) -> dict[str, Any]:
    """The JSON Schema asked for. Raises InvalidArgument where it is not an object in JSON."""
    return json_object(form.json_schema, f"{FORMAT}.json_schema")


def json_object(text: str, field: str) -> dict[str, Any]:
    """An object from JSON text. Raises InvalidArgument naming `field`."""
    try:
        return read_object(text)
    except ValueError as error:
        raise InvalidArgument(f"{field}: {error}", field=field) from error


def past_arguments(text: str, field: str) -> str:
    """Arguments of a past call as JSON text. What is no JSON passes: models write such, and OpenAI takes it back.

    Raises InvalidArgument naming `field` for JSON that no server could read again.
    """
    try:
        read_json(text)
    except NotJson:
        return text
    except ValueError as error:
        raise InvalidArgument(f"{field}: {error}", field=field) from error
    return text


def texts(message: Message) -> str:
    """A message's texts, one below the other."""
    return "\n".join(part.text for part in message.content if part.WhichOneof("part") == "text")


def is_text(part: ContentPart) -> bool:
    """Whether a part is text and not empty: several providers refuse empty ones."""
    return part.WhichOneof("part") == "text" and bool(part.text)


def image_data(image: ImagePart, field: str) -> tuple[str, str] | None:
    """An image's media type and its bytes in base64; None where it is a link. Raises InvalidArgument."""
    if image.WhichOneof("source") == "data":
        if not image.media_type:
            raise InvalidArgument(f"{field}.media_type: missing", field=f"{field}.media_type")
        return image.media_type, base64.b64encode(image.data).decode()
    if not image.url.startswith("data:"):
        return None
    parts = _DATA_URL.fullmatch(image.url)
    if parts is None:
        raise InvalidArgument(f"{field}.url: a data URL must hold a media type and base64", field=f"{field}.url")
    return parts[1], parts[2]
