"""Request bodies into types. Whatever is wrong with one becomes an InvalidArgument that names the field."""

from __future__ import annotations

import re
from typing import Final, Generic, TypeVar

import msgspec

from gateway.core.openai.faults import find_fault
from mesh.errors import InvalidArgument

T = TypeVar("T", bound=msgspec.Struct)

_AT: Final = re.compile(r"(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>.*)`)?", re.DOTALL)
_FIELD: Final = re.compile(r"Object (?:missing required|contains unknown) field `(?P<name>.*)`", re.DOTALL)
_BOM: Final = b"\xef\xbb\xbf"
# The type of fields that are known and not offered.
_ONLY_NULL: Final = "Expected `null`, got "
# Field names are the caller's: nothing endless is repeated to them.
_MAX_PARAM: Final = 128


class Decoder(Generic[T]):
    """Decodes bodies of one type."""

    def __init__(self, kind: type[T]) -> None:
        self._decoder = msgspec.json.Decoder(kind)

    def decode(self, body: bytes) -> T:
        """The body, with or without a byte order mark. Raises InvalidArgument."""
        body = body.removeprefix(_BOM)
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise _invalid(str(error)) from error
        except UnicodeDecodeError as error:
            raise InvalidArgument("The body is not valid UTF-8.", reason="INVALID_UTF8") from error
        except (RecursionError, msgspec.DecodeError) as error:
            raise _malformed(error, body) from error


def _invalid(text: str) -> InvalidArgument:
    match = _AT.fullmatch(text)
    assert match is not None  # the expression matches any text
    what, path = match["what"], (match["path"] or "").removeprefix(".").replace("[...]", "")
    named = _FIELD.fullmatch(what)
    if named is None:
        field = path[:_MAX_PARAM]
        if what.startswith(_ONLY_NULL):
            message = f"Unsupported argument: '{field}' is not offered here; leave it out, or send null."
            return InvalidArgument(message, field=field, reason="UNSUPPORTED_PARAMETER")
        what = what.replace("`", "")
        return InvalidArgument(_sentence(field, what[0].lower() + what[1:]), field=field or None)
    field = (f"{path}.{named['name']}" if path else named["name"])[:_MAX_PARAM]
    if "unknown" in what[: what.index("field")]:
        return InvalidArgument(f"Unrecognized request argument: '{field}'.", field=field, reason="UNKNOWN_PARAMETER")
    return InvalidArgument(f"Missing required argument: '{field}'.", field=field, reason="MISSING_REQUIRED_PARAMETER")


def _sentence(field: str, what: str) -> str:
    return f"Invalid '{field}': {what}." if field else f"Invalid body: {what}."


def _malformed(error: RecursionError | msgspec.DecodeError, body: bytes) -> InvalidArgument:
    fault = find_fault(body)
    if fault is not None and fault.field:
        field = fault.field[:_MAX_PARAM]
        reason = "INVALID_ARGUMENT" if fault.number else "INVALID_JSON"
        return InvalidArgument(_sentence(field, fault.what), field=field, reason=reason)
    what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return InvalidArgument(f"The body is not valid JSON: {what}.", reason="INVALID_JSON")
