"""Bodies as they come: compressed, false, too large, of too many values."""

import contextlib
import gzip
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.http.bodies import BodyReader, Encoding, decompressed, encoding_of
from gateway.adapters.http.exchange import RequestRefused
from mesh.errors import InvalidArgument

MEGABYTE = 1024 * 1024


def raw_deflate(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(data) + made.flush()


@given(st.binary(max_size=2000), st.integers(1, 5))
def test_what_was_compressed_is_read_as_it_was(data: bytes, members: int) -> None:
    assert decompressed(gzip.compress(data) * members, "gzip", MEGABYTE) == data * members
    assert decompressed(zlib.compress(data), "deflate", MEGABYTE) == data
    assert decompressed(raw_deflate(data), "deflate", MEGABYTE) == data


@given(st.binary(min_size=1, max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_what_is_not_what_it_says_is_refused(data: bytes, encoding: Encoding) -> None:
    # Random bytes may be a stream, by chance.
    with contextlib.suppress(InvalidArgument):
        assert len(decompressed(data, encoding, MEGABYTE)) <= MEGABYTE


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_half_a_stream_is_refused(encoding: Encoding) -> None:
    whole = (gzip if encoding == "gzip" else zlib).compress(b"{}" * 500)
    for end in range(1, len(whole)):
        with pytest.raises(InvalidArgument):
            decompressed(whole[:end], encoding, MEGABYTE)


@pytest.mark.parametrize(
    "bomb",
    [gzip.compress(bytes(64 * MEGABYTE)), gzip.compress(bytes(3 * MEGABYTE)), gzip.compress(b"x" * 8000) * 3000],
    ids=["size", "ratio", "members"],
)
def test_a_bomb_is_refused_before_it_is_large(bomb: bytes) -> None:
    with pytest.raises(RequestRefused) as caught:
        decompressed(bomb, "gzip", 8 * MEGABYTE)
    assert caught.value.refusal.status == 413


@pytest.mark.parametrize("header", ["br", "zstd", "gzip, gzip", "compress", "x" * 500])
def test_an_encoding_that_is_not_known_is_named(header: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        encoding_of(header)
    refusal = caught.value.refusal
    assert refusal.status == 415
    assert header[:64] in refusal.detail.message
    assert (b"accept-encoding", b"gzip, deflate, identity") in refusal.headers


@pytest.mark.parametrize(("header", "encoding"), [(None, ""), ("identity", ""), ("GZIP", "gzip"), (" x-gzip ", "gzip")])
def test_encodings_that_are_known(header: str | None, encoding: str) -> None:
    assert encoding_of(header) == encoding


async def test_too_many_values_are_refused_before_they_are_decoded() -> None:
    reader = BodyReader(8 * MEGABYTE)
    bodies: dict[Encoding, bytes] = {"": b"[" + b"1," * 300_000 + b"1]"}
    bodies["gzip"] = gzip.compress(b"[" + b"1,22," * 200_000 + b"1]" + random.Random(1).randbytes(50_000))
    for encoding, body in bodies.items():
        with pytest.raises(InvalidArgument):
            await reader.read(body, encoding, lambda _: pytest.fail("decoded"))


async def test_commas_in_a_text_are_no_values() -> None:
    body = b'["' + b'a,\\",' * 300_000 + b'"]'
    assert await BodyReader(8 * MEGABYTE).read(body, "", len) == len(body)
