"""From a body as it came to a request that is understood: decompressed, bounded, and large ones apart from the rest."""

from __future__ import annotations

import asyncio
import contextlib
import re
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from gateway.adapters.http.exchange import RequestRefused, too_large
from gateway.core.openai.errors import ErrorDetail, Refusal
from mesh.errors import InvalidArgument
from mesh.memory import GiveBack

T = TypeVar("T")
Encoding = Literal["", "gzip", "deflate"]

# From here on a body is read in a thread of its own, one at a time: of a megabyte that takes milliseconds.
LARGE_BYTES: Final = 256 * 1024
# What text compresses to honestly; only what comes to more than a megabyte is looked at.
_MAX_RATIO: Final = 100
_FREE_BYTES: Final = 1024 * 1024
# Values in a body, whatever they are: decoding so many takes a tenth of a second, in which nothing else runs.
_MAX_VALUES: Final = 250_000
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_NAMES: Final[dict[str, Encoding]] = {
    "": "", "identity": "", "gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate",
}  # fmt: skip
_ACCEPTED: Final = "gzip, deflate, identity"


def encoding_of(header: str | None) -> Encoding:
    """How the body is compressed. Raises RequestRefused for what is not known here."""
    name = (header or "").strip().lower()
    if name not in _NAMES:
        message = f"Unknown content-encoding {name[:64]!r}: send one of {_ACCEPTED}."
        detail = ErrorDetail(message, "invalid_request_error", None, "unsupported_media_type")
        raise RequestRefused(Refusal(415, detail, [(b"accept-encoding", _ACCEPTED.encode())]))
    return _NAMES[name]


@dataclass(slots=True)
class Held:
    """What one request takes."""

    # Bytes of its body, as it came.
    size: int = 0


class BodyReader:
    """Reads bodies. `decode` raises InvalidArgument; so do the methods, or RequestRefused."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="large-body")
        self._memory = GiveBack()

    async def read(self, body: bytes, encoding: Encoding, decode: Callable[[bytes], T]) -> T:
        """The request in the body."""
        if len(body) < LARGE_BYTES and not encoding:
            return decode(body)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, body, encoding, decode)

    @contextlib.contextmanager
    def held(self) -> Iterator[Held]:
        """While a request is answered; what a large one took is given back afterwards."""
        held = Held()
        try:
            yield held
        finally:
            if held.size >= LARGE_BYTES:
                self._memory.soon()

    def _read(self, body: bytes, encoding: Encoding, decode: Callable[[bytes], T]) -> T:
        plain = decompressed(body, encoding, self._max_bytes) if encoding else body
        if plain.count(b",") > _MAX_VALUES and _STRING.sub(b"", plain).count(b",") > _MAX_VALUES:
            raise InvalidArgument(f"The body holds more than {_MAX_VALUES} values.", reason="OUT_OF_RANGE")
        return decode(plain)


def decompressed(body: bytes, encoding: Encoding, max_bytes: int) -> bytes:
    """The body as it was; never more than `max_bytes` are held. Raises RequestRefused and InvalidArgument."""
    limit = min(max_bytes, max(_FREE_BYTES, _MAX_RATIO * len(body)))
    made: list[bytes] = []
    size = 0
    while body:
        reader = zlib.decompressobj(_window(body, encoding))
        try:
            piece = reader.decompress(body, limit - size + 1)
        except zlib.error as error:
            raise _malformed(encoding) from error
        made.append(piece)
        size += len(piece)
        if size > limit:
            raise too_large(limit)
        if not reader.eof:
            raise _malformed(encoding)
        # A file may consist of several, one behind the other.
        body = reader.unused_data.lstrip(b"\0")
    return b"".join(made)


def _window(body: bytes, encoding: Encoding) -> int:
    if encoding == "gzip":
        return 16 + zlib.MAX_WBITS
    # "deflate" means the zlib format, and some send the bare stream.
    header = int.from_bytes(body[:2], "big")
    return zlib.MAX_WBITS if body[0] & 0x0F == 8 and header % 31 == 0 else -zlib.MAX_WBITS


def _malformed(encoding: Encoding) -> InvalidArgument:
    message = f"The body is not what its content-encoding says: it cannot be read as {encoding}."
    return InvalidArgument(message, field="content-encoding", reason="INVALID_ENCODING")
