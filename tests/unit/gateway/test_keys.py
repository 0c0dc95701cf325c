"""API keys: who is let in, and what the keys file may look like."""

import asyncio
import hashlib
from pathlib import Path

import prometheus_client
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.keys_file import read
from gateway.core.admission import Admission, seconds_of
from gateway.core.keys import Caller, KeyRing, StoredKey
from mesh.errors import InvalidArgument, MeshError, ResourceExhausted, Unauthenticated
from mesh.resilience import LoadShed
from mesh.watched_file import WatchedFile
from mesh.yaml_source import FileErrors
from tests.fakes.clock import MovingClock


def digest(plain: str) -> bytes:
    return hashlib.sha256(plain.encode()).digest()


def entry(key_id: str, tenant: str, plain: str) -> dict[str, str]:
    return {"id": key_id, "tenant": tenant, "sha256": digest(plain).hex()}


RING = KeyRing([StoredKey(Caller("a", "t1"), digest("key-a")), StoredKey(Caller("b", "t2"), digest("key-b"))])
ADMISSION = Admission(RING, LoadShed(1), MovingClock(), 60.0)


@given(st.dictionaries(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=5), max_size=20), st.text())
def test_a_ring_finds_exactly_its_keys(keys: dict[str, str], other: str) -> None:
    ring = KeyRing(
        StoredKey(Caller(plain, tenant), hashlib.sha256(plain.encode()).digest()) for plain, tenant in keys.items()
    )
    for plain, tenant in keys.items():
        assert ring.find(plain) == Caller(plain, tenant)
    if other not in keys:
        with pytest.raises(Unauthenticated):
            ring.find(other)


@pytest.mark.parametrize(
    ("authorization", "api_key", "key_id"),
    [
        ("Bearer key-a", None, "a"),
        ("bearer  key-b ", None, "b"),
        (None, "key-b", "b"),
        ("Basic zzz", "key-a", "a"),
    ],
)
def test_a_key_comes_as_bearer_or_in_its_own_header(
    authorization: str | None, api_key: str | None, key_id: str
) -> None:
    assert ADMISSION.authenticate(authorization, api_key).key_id == key_id


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, "MISSING_API_KEY"),
        ("", "INVALID_API_KEY"),
        ("Bearer", "INVALID_API_KEY"),
        ("Bearer ", "INVALID_API_KEY"),
        ("Bearer key-c", "INVALID_API_KEY"),
        ("Bearer \udcff", "INVALID_API_KEY"),
        ("Bearer " + "x" * 100_000, "INVALID_API_KEY"),
        ("Basic a2V5LWE=", "INVALID_API_KEY"),
    ],
)
def test_nobody_else_is_let_in(authorization: str | None, reason: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        ADMISSION.authenticate(authorization)
    assert caught.value.reason == reason


def test_room_is_bounded_and_given_back() -> None:
    with ADMISSION.shed.enter():
        with pytest.raises(ResourceExhausted) as caught:
            ADMISSION.shed.enter()
        assert caught.value.retry_after_s is not None
    with ADMISSION.shed.enter():
        pass


def test_a_caller_may_ask_for_less_time_never_for_more() -> None:
    assert ADMISSION.deadline(None).left() == 60
    assert ADMISSION.deadline(5).left() == 5
    assert ADMISSION.deadline(3600).left() == 60


@pytest.mark.parametrize("text", ["", "soon", "0", "-1", "nan", "inf", "1e999"])
def test_seconds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        seconds_of(text, "x-headrace-timeout")
    assert caught.value.field == "x-headrace-timeout"


def test_the_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(yaml.safe_dump([entry("a", "t1", "key-a"), entry("b", "t2", "key-b")]))
    assert read(path).find("key-b") == Caller("b", "t2")
    path.write_text("")
    with pytest.raises(Unauthenticated):
        read(path).find("key-b")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", ":1: not YAML"),
        ("a: b", ":1: is not a list"),
        ("- {id: a, tenant: t}", ":1: [0]: Object missing required field `sha256`"),
        ("- {id: a, tenant: t, sha256: abc}", ":1: [0].sha256: "),
        ("- {id: a, tenant: t, hr-secret: x}", ":1: [0]: an unknown field"),
        ("- {id: a, tenant: t, hr-secret: x, hr-secret: y}", ":1: [0]: given twice"),
        ("- {id: hr-secret\n  hr-secret", ":2: not YAML"),
        ("- &hr-secret a\n- *hr-secrets", ":2: not YAML"),
        ("- {id: !hr-secret a, tenant: t, sha256: a}", ":1: [0].id: has a tag that is not allowed"),
        (
            "- {id: a, tenant: t, sha256: '" + "0" * 64 + "', key: hr-secret}",
            ":1: [0].key: Object contains unknown field `key`",
        ),
        (yaml.safe_dump([entry("a", "t", "x"), entry("a", "t", "y")]), ":4: [1].id: is there twice"),
        (yaml.safe_dump([entry("a", "t", "x"), entry("b", "t", "x")]), ":5: [1].sha256: is there twice"),
    ],
)
def test_a_bad_file_is_refused_without_showing_what_is_in_it(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(FileErrors) as caught:
        read(path)
    assert says in str(caught.value)
    assert "hr-secret" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileErrors, match="cannot be read"):
        read(tmp_path / "none.yaml")
    path = tmp_path / "keys.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileErrors, match="not YAML"):
        read(path)


async def test_a_change_comes_into_force_and_a_bad_one_does_not(tmp_path: Path) -> None:
    path, draft = tmp_path / "keys.yaml", tmp_path / "draft.yaml"
    path.write_text(yaml.safe_dump([entry("a", "t1", "key-a")]))
    rings: asyncio.Queue[KeyRing] = asyncio.Queue()
    file = WatchedFile("keys", path, read, interval_s=0.005)
    assert file.load().find("key-a").key_id == "a"
    task = asyncio.create_task(file.run(rings.put_nowait))
    try:
        async with asyncio.timeout(30):
            draft.write_text("- nonsense")
            draft.replace(path)
            while file.refused is None:
                await asyncio.sleep(0.005)
            assert rings.empty()
            labels = {"file": "keys", "reason": "values"}
            metric = "headrace_file_refused_since_seconds"
            assert prometheus_client.REGISTRY.get_sample_value(metric, labels) == file.refused.since
            draft.write_text(yaml.safe_dump([entry("b", "t1", "key-b")]))
            draft.replace(path)
            ring = await rings.get()
            while file.refused is not None:
                await asyncio.sleep(0.005)
            assert prometheus_client.REGISTRY.get_sample_value(metric, labels) == 0
        assert ring.find("key-b").key_id == "b"
        with pytest.raises(MeshError):
            ring.find("key-a")
    finally:
        task.cancel()
