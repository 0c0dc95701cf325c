"""Watched files: a bad one is refused and the one before holds, whatever is wrong with it, in every reader there is."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

from gateway import app as gateway_app
from gateway.adapters import keys_file
from gateway.config import GatewayConfig
from mesh import stack as stacks
from mesh import telemetry
from mesh.clock import SYSTEM
from mesh.control import app as control_app
from mesh.control.config import ControlConfig
from mesh.lifecycle import EX_USAGE, run
from mesh.watched_file import Refusal, WatchedFile
from mesh.yaml_source import YamlSource
from router import app as router_app
from router.adapters import routing_file
from router.config import RouterConfig
from tests.fakes.clock import MovingClock
from tests.unit.mesh.test_stack import GOOD as STACK
from tests.unit.mesh.test_yaml_source import BOMB
from tests.unit.router.test_routing_file import GOOD as ROUTING

KEYS = f"- {{id: a, tenant: t, sha256: '{hashlib.sha256(b'x').hexdigest()}'}}\n"
# A reader, what it reads, and one line more with which it cannot be read.
KINDS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "keys": (keys_file.read, KEYS, "- {id: 2026-11-31, tenant: t, sha256: x}\n"),
    "routing": (routing_file.read, ROUTING, "    version: 2026-11-31\n"),
    "stack": (stacks.load, STACK, "    replicas: 2026-11-31\n"),
}
BAD: dict[str, Callable[[str, str], bytes]] = {
    "typo": lambda good, line: (good + line).encode(),
    "tab": lambda good, _: (good + "\n\t- x").encode(),
    "nul": lambda good, _: (good + "\0").encode(),
    "encoding": lambda good, _: good.encode() + b"\xff",
    "utf16": lambda good, _: good.encode("utf-16"),
    "huge_number": lambda good, _: (good + "    replicas: " + "9" * 5000 + "\n").encode(),
    "deep": lambda good, _: (good + "[" * 100_000).encode(),
    "bomb": lambda good, _: BOMB.encode(),
    "recursive": lambda good, _: b"&a [*a]",
    "twice": lambda good, _: (good + good.splitlines()[-1] * 2 + "\n").encode(),
    "empty_map": lambda good, _: b"{}",
    "tagged": lambda good, _: b"!!python/object/apply:os.getcwd []",
}


class SteppedClock(MovingClock):
    """Sleeps until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self._go = asyncio.Event()
        self._asleep = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self._asleep.set()
        await self._go.wait()
        self._go.clear()

    async def step(self) -> None:
        """Let one sleep end, and return when the sleeper has done what it does and sleeps again."""
        await self._asleep.wait()
        self._asleep.clear()
        self._go.set()
        await self._asleep.wait()


def replace(path: Path, text: str) -> None:
    """In one step: a reader sees the old or the new one."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


async def eventually(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("kind", KINDS)
async def test_no_bad_file_comes_into_force_and_each_is_explained(kind: str, tmp_path: Path) -> None:
    read, good, line = KINDS[kind]
    path, draft = tmp_path / "watched.yaml", tmp_path / "draft.yaml"
    path.write_text(good)
    file = WatchedFile("unit", path, read, interval_s=0.001)
    first = file.load()
    used: list[object] = [first]
    refusals: list[Refusal] = []
    watching = asyncio.create_task(file.run(used.append, refusals.append))
    try:
        for name, make in BAD.items():
            count = len(refusals)
            draft.write_bytes(make(good, line))
            draft.replace(path)
            await eventually(lambda count=count: len(refusals) > count)
            assert str(path) in str(refusals[-1]), name
            assert used == [first], name
        path.unlink()
        await eventually(lambda: "No such file" in str(file.refused))
        path.mkdir()
        await eventually(lambda: "not a regular file" in str(file.refused))
        path.rmdir()
        draft.write_text(good + "\n")
        draft.replace(path)
        # A file that appears between a look and the reading that follows it is read at the next look too.
        await eventually(lambda: len(used) > 1 and file.refused is None)
        # From the first that was refused until one was good again, it was refused.
        assert len({refusal.since for refusal in refusals}) == 1
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def starting(name: str, path: Path) -> int:
    """What the process's exit code would be. Logging stays the tests'."""
    variable = {"gateway": "KEYS", "router": "CONFIG", "control": "STACK"}[name]
    env = {f"HEADRACE_{name.upper()}_{variable}": str(path)}
    types: dict[str, Any] = {"gateway": GatewayConfig, "router": RouterConfig, "control": ControlConfig}
    builds: dict[str, Any] = {"gateway": gateway_app.build, "router": router_app.build, "control": control_app.build}
    return run(name, types[name], builds[name], env)


@pytest.mark.parametrize(("name", "kind"), [("gateway", "keys"), ("router", "routing"), ("control", "stack")])
@pytest.mark.parametrize("bad", ["typo", "nul", "bomb", "deep"])
def test_a_process_that_starts_says_the_same_and_exits_with_64(
    name: str,
    kind: str,
    bad: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telemetry, "configure_logging", lambda *_: None)
    _, good, line = KINDS[kind]
    path = tmp_path / "wrong.yaml"
    path.write_bytes(BAD[bad](good, line))
    assert starting(name, path) == EX_USAGE
    said = capfd.readouterr().err
    assert f"{path}:" in said
    assert "Traceback" not in said


async def test_a_change_within_one_tick_of_the_files_time_is_seen(tmp_path: Path) -> None:
    """An editor empties the file and writes it, and a look in between must not be the last."""
    path = tmp_path / "router.yaml"
    path.write_text(ROUTING)
    file = WatchedFile("unit", path, routing_file.read, interval_s=1.0, clock=MovingClock())
    file.load()
    used: asyncio.Queue[str] = asyncio.Queue()
    times = path.stat()
    path.write_text(ROUTING.replace("pub", "bup"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    watching = asyncio.create_task(file.run(lambda routing: used.put_nowait(routing.version)))
    try:
        assert await asyncio.wait_for(used.get(), 20) == routing_file.read(path).version
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_files_that_a_value_was_made_from_are_followed_too(tmp_path: Path) -> None:
    path, calibration = tmp_path / "router.yaml", tmp_path / "c.json"
    path.write_text(ROUTING + "    cascade: {calibration: c.json}\n")
    calibration.write_text("{}")
    file = WatchedFile(
        "unit", path, routing_file.read, interval_s=0.001, beside=lambda r: routing_file.calibrations_of(path, r)
    )
    first = file.load()
    used: list[Any] = []
    watching = asyncio.create_task(file.run(used.append))
    try:
        calibration.write_text("[" * 100_000)
        await eventually(lambda: "c.json" in str(file.refused))
        calibration.write_text('{"confidence_threshold": 0.5}')
        await eventually(lambda: used)
        assert used[0].version != first.version
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@pytest.mark.parametrize("part", ["read", "used"])
async def test_a_defect_of_the_reader_refuses_the_file_and_ends_nothing(part: str, tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("good")
    broken = [part]

    def read(path: Path) -> str:
        value: str = YamlSource.read(path).data
        return {}["hr-secret"] if value == "bad" and broken == ["read"] else value

    def use(value: str) -> None:
        if value == "bad" and broken == ["used"]:
            raise RecursionError
        used.append(value)

    used: list[str] = []
    file = WatchedFile("unit", path, read, interval_s=0.001, clock=SYSTEM)
    assert file.load() == "good"
    watching = asyncio.create_task(file.run(use))
    try:
        replace(path, "bad")
        await eventually(lambda: file.refused)
        assert file.refused is not None
        assert file.refused.kind == "defect"
        assert "hr-secret" not in str(file.refused)
        labels = {"file": "unit", "reason": "defect"}
        since = prometheus_client.REGISTRY.get_sample_value("headrace_file_refused_since_seconds", labels)
        assert since == file.refused.since
        replace(path, "better")
        await eventually(lambda: used)
        assert used == ["better"]
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_file_that_is_emptied_to_be_written_is_not_taken_for_empty(tmp_path: Path) -> None:
    """An empty keys file lets nobody in, and an editor empties it for a moment."""
    path = tmp_path / "keys.yaml"
    path.write_text(KEYS)
    clock = SteppedClock()
    file = WatchedFile("unit", path, keys_file.read, interval_s=1.0, clock=clock)
    file.load()
    used: list[object] = []
    watching = asyncio.create_task(file.run(used.append))
    try:
        path.write_text("")
        await clock.step()
        path.write_text(KEYS.replace("id: a", "id: b"))
        await clock.step()
        assert len(used) == 1
        assert used[0].find("x").key_id == "b"
        path.write_text("")
        await clock.step()
        assert len(used) == 1
        await clock.step()
        assert len(used) == 2
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_that_may_be_read_again_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("a")
    file = WatchedFile("unit", path, lambda p: YamlSource.read(p).data, interval_s=0.001)
    file.load()
    used: list[str] = []
    watching = asyncio.create_task(file.run(used.append))
    try:
        path.chmod(0)
        await eventually(lambda: "Permission denied" in str(file.refused))
        path.chmod(0o600)
        await eventually(lambda: used)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
