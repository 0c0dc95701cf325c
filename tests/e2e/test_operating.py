"""What an operator does: look, scale, restart, read logs, talk. Each with the `headrace` command."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.loads import load_of, until_busy
from tests.e2e.mesh_under_test import Mesh, eventually, headrace
from tests.e2e.streams import asking, assert_whole, whole_answer


def test_status_shows_every_process(mesh: Mesh) -> None:
    mesh.wait_healthy()
    # Who is asked has a second to answer, and may miss it once on a busy machine.
    rows = eventually(lambda: _with_loads(mesh.rows()), 30, "the routers answer")
    assert set(rows) == {
        "envoy", "gateway-0", "gateway-1", "router-0", "router-1", "small-0", "paced-0", "paced-1", "alone-0",
        "endless-0", "control",
    }  # fmt: skip
    assert all(row["pid"] and row["rss_mb"] > 5 for row in rows.values())
    # Of a node that no test before this one takes down under its callers.
    assert rows["endless-0"]["load"]["capacity"] > 0
    assert rows["endless-0"]["load"]["breaker"] == "closed"
    shown = mesh.headrace("status", check=False).stdout
    assert all(name in shown for name in rows)


def _with_loads(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]] | None:
    return rows if rows["endless-0"]["load"] else None


async def test_scaling_drops_no_request_and_the_new_replica_takes_traffic(
    mesh: Mesh, client: openai.AsyncOpenAI
) -> None:
    text = await whole_answer(client, "alone")
    # Always as many, however slow the machine.
    async with asking(client, "alone", 12) as streams:
        async with load_of(mesh, "alone") as reports:
            await until_busy(reports)
        await asyncio.to_thread(mesh.headrace, "scale", "alone=2")
        for index in (0, 1):
            async with load_of(mesh, "alone", index) as reports:
                await until_busy(reports)
        await asyncio.to_thread(mesh.headrace, "scale", "alone=1")
    assert_whole(streams, text)
    await asyncio.to_thread(mesh.wait_healthy)
    assert "alone-1" not in await asyncio.to_thread(mesh.rows)


def test_a_wrong_scale_changes_nothing(mesh: Mesh) -> None:
    before = (mesh.state / "stack.yaml").read_text()
    for wrong in ("nobody=2", "alone", "alone=-1", "alone=9999"):
        done = mesh.headrace("scale", wrong, check=False)
        assert done.returncode == 2, wrong
        assert "next:" in done.stderr
    assert (mesh.state / "stack.yaml").read_text() == before


def test_a_crashed_process_is_restarted(mesh: Mesh) -> None:
    pid = mesh.pid("router-0")
    os.kill(pid, signal.SIGKILL)
    mesh.wait_replaced("router-0", pid)


def test_up_while_it_is_up_says_so_and_prints_the_same(mesh: Mesh) -> None:
    again = mesh.headrace("up", "--json")
    assert json.loads(again.stdout)["key"] == mesh.key
    assert "is up already" in mesh.headrace("up").stderr


@pytest.mark.parametrize(
    ("file", "name", "line", "processes"),
    [
        ("s/keys.yaml", "keys", "- {id: 2026-11-31, tenant: 3, sha256: x}", {"gateway-0", "gateway-1"}),
        ("router.yaml", "routing", "deploiments: 3", {"router-0", "router-1"}),
        ("s/stack.yaml", "stack", "nmae: x", {"control"}),
    ],
)
def test_status_shows_who_refuses_which_file_and_why(
    mesh: Mesh, file: str, name: str, line: str, processes: set[str]
) -> None:
    """With line and reason, in both forms, and until the file is good again."""
    mesh.wait_healthy()
    path = mesh.state.parent / file
    good = path.read_text()
    number = len(good.splitlines()) + 1
    try:
        _replace(path, f"{good}{line}\n")

        def seen() -> dict[str, list[str]] | None:
            refused = [one for one in mesh.status()["refused"] if one["file"] == name]
            return {one["process"]: one["problems"] for one in refused} if len(refused) >= len(processes) else None

        refused = eventually(seen, 60, "all of them have seen the file")
        assert set(refused) == processes
        assert all(f"{path.name}:{number}: " in problems[0] for problems in refused.values()), refused
        done = mesh.headrace("status", check=False)
        assert done.returncode == 1
        assert all(f"{one} refuses its {name} file" in done.stdout for one in processes)
        assert f"{path.name}:{number}: " in done.stdout
    finally:
        _replace(path, good)
    mesh.wait_healthy()
    assert mesh.status()["refused"] == []


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_every_xds_client_has_acknowledged_what_it_was_sent(mesh: Mesh) -> None:
    mesh.wait_healthy()

    def settled() -> bool:
        dump = json.loads(mesh.headrace("config", "dump", "--json").stdout)
        clients = {client["node_id"]: client["subscriptions"] for client in dump["clients"]}
        # One that was just started, or whose control plane was, may still be connecting.
        missing = {"edge-0", "gateway-0", "gateway-1", "router-0", "router-1"} - set(clients)
        refused = [one for subscriptions in clients.values() for one in subscriptions if one.get("nacked_version")]
        assert refused == []
        unsettled = [o for each in clients.values() for o in each if o.get("sent_version") != o.get("acked_version")]
        return not missing and not unsettled

    eventually(settled, 30, "everything is acknowledged")


def test_chat_through_a_pipe_keeps_the_conversation(mesh: Mesh) -> None:
    done = mesh.headrace(
        "chat",
        "--model",
        "smollm2-135m-instruct",
        "--temperature",
        "0",
        input="What is the capital of France? Answer in one short sentence.\nSay hello.\n",
    )
    lines = done.stdout.splitlines()
    assert "Paris" in done.stdout
    assert len(lines) >= 2
    wrong = mesh.headrace("chat", "--model", "nobody", input="hi\n", check=False)
    assert wrong.returncode == 2
    assert "smollm2-135m-instruct" in wrong.stderr


def test_logs_show_what_a_service_wrote(mesh: Mesh) -> None:
    assert "service.started" in mesh.headrace("logs", "router-0", "-n", "1000").stdout
    both = mesh.headrace("logs", "gateway", "-n", "1").stdout
    assert "gateway-0" in both
    assert "gateway-1" in both
    unknown = mesh.headrace("logs", "nobody", check=False)
    assert unknown.returncode == 2
    assert "router-0" in unknown.stderr


def test_a_new_key_works_and_a_revoked_one_does_not(mesh: Mesh) -> None:
    key = mesh.headrace("keys", "new", "--id", "visitor", "--tenant", "acme").stdout.strip()
    client = openai.OpenAI(base_url=mesh.url, api_key=key, max_retries=0)

    def works() -> bool:
        try:
            return bool(client.models.list().data)
        except openai.AuthenticationError:
            return False

    with client:
        eventually(works, 30, "the new key is known")
        mesh.headrace("keys", "revoke", "visitor")
        eventually(lambda: not works(), 30, "the revoked key is forgotten")


def test_a_taken_port_is_named_before_anything_starts(mesh: Mesh, tmp_path: Path) -> None:
    """A second mesh on the ports of the first."""
    done = headrace(tmp_path / "s", "up", "--stack", str(mesh.state / "stack.yaml"), check=False)
    assert done.returncode == 69
    assert f"port {mesh.ports['edge']} (for edge.listen) is in use" in done.stderr
    assert "next:" in done.stderr
    assert not (tmp_path / "s" / "supervisord.pid").exists()
