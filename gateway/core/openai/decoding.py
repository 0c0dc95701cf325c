"""Request bodies into types. Whatever is wrong with one becomes an InvalidArgument that names the field."""

from __future__ import annotations

import re
from typing import Final, Generic, TypeVar

import msgspec

from mesh.errors import InvalidArgument

T = TypeVar("T", bound=msgspec.Struct)

_AT: Final = re.compile(r"(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>.*)`)?", re.DOTALL)
_FIELD: Final = re.compile(r"Object (?:missing required|contains unknown) field `(?P<name>.*)`", re.DOTALL)
_BYTE: Final = re.compile(r"\(byte (\d+)\)")
_KEY_BEFORE: Final = re.compile(rb'"([A-Za-z0-9_]{1,64})"\s*:\s*-?\s*\Z')
_NOT_NUMBERS: Final = (b"NaN", b"Infinity")
# Field names are the caller's: nothing endless is repeated to them.
_MAX_PARAM: Final = 128


class Decoder(Generic[T]):
    """Decodes bodies of one type."""

    def __init__(self, kind: type[T]) -> None:
        self._decoder = msgspec.json.Decoder(kind)

    def decode(self, body: bytes) -> T:
        """The body. Raises InvalidArgument."""
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise _invalid(str(error)) from error
        except UnicodeDecodeError as error:
            raise InvalidArgument("The body is not valid UTF-8.", reason="INVALID_UTF8") from error
        except RecursionError as error:
            raise InvalidArgument("The body is nested too deeply.", reason="INVALID_JSON") from error
        except msgspec.DecodeError as error:
            raise _malformed(str(error), body) from error


def _invalid(text: str) -> InvalidArgument:
    match = _AT.fullmatch(text)
    assert match is not None  # the expression matches any text
    what, path = match["what"], (match["path"] or "").removeprefix(".").replace("[...]", "")
    named = _FIELD.fullmatch(what)
    if named is None:
        field = path[:_MAX_PARAM]
        what = what.replace("`", "")
        return InvalidArgument(_sentence(field, what[0].lower() + what[1:]), field=field or None)
    field = (f"{path}.{named['name']}" if path else named["name"])[:_MAX_PARAM]
    if "unknown" in what[: what.index("field")]:
        return InvalidArgument(f"Unrecognized request argument: '{field}'.", field=field, reason="UNKNOWN_PARAMETER")
    return InvalidArgument(f"Missing required argument: '{field}'.", field=field, reason="MISSING_REQUIRED_PARAMETER")


def _sentence(field: str, what: str) -> str:
    return f"Invalid '{field}': {what}." if field else f"Invalid body: {what}."


def _malformed(text: str, body: bytes) -> InvalidArgument:
    at = _BYTE.search(text)
    if at is not None:
        offset = int(at[1])
        key = _KEY_BEFORE.search(body[max(0, offset - 256) : offset])
        if key is not None and body[offset:].startswith(_NOT_NUMBERS):
            field = key[1].decode()
            return InvalidArgument(f"Invalid '{field}': a finite number is needed.", field=field)
    return InvalidArgument(f"The body is not valid JSON: {text}.", reason="INVALID_JSON")
