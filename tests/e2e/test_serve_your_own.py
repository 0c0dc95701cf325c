"""docs/serve-your-own.md does what it says: its two files, brought up and asked."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import openai
import pytest

from inference.adapters.model_files import SMOLLM2
from ops.drills.provider.app import Provider, ProviderOptions
from tests.e2e.mesh_under_test import ROOT, headrace
from tests.ports import free_ports

pytestmark = pytest.mark.timeout(300)


async def test_the_files_of_the_page_serve_a_model_and_a_provider(tmp_path: Path) -> None:
    stack, routing = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/serve-your-own.md").read_text(), re.DOTALL)
    own = Provider(ProviderOptions(port=free_ports(), answer_tokens=5))
    await own.start()
    base = free_ports(20)
    ports = iter(range(base, base + 20))
    stack = stack.replace("127.0.0.1:8000", f"127.0.0.1:{own.port}")
    # Every other port of the page, one after the other.
    stack = re.sub(r"(?<=: )[79]\d{3}\b|(?<=127\.0\.0\.1:)(?:[79]\d{3}|8080)\b", lambda _: str(next(ports)), stack)
    (tmp_path / "stack.yaml").write_text(stack)
    (tmp_path / "routing.yaml").write_text(routing)
    (tmp_path / "provider.key").write_text("secret\n")
    (tmp_path / "model.gguf").symlink_to(SMOLLM2.path())
    state = tmp_path / "s"
    try:
        done = await asyncio.to_thread(headrace, state, "up", "--stack", str(tmp_path / "stack.yaml"), "--json")
        up = json.loads(done.stdout)
        async with openai.AsyncOpenAI(base_url=up["url"], api_key=up["key"], max_retries=0) as client:
            assert {one.id async for one in client.models.list()} == {"own", "hosted"}
            question = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]
            mine = await client.chat.completions.create(model="own", messages=question, temperature=0)
            assert "Paris" in (mine.choices[0].message.content or "")
            calls = own.report()["calls"]
            theirs = await client.chat.completions.create(model="hosted", messages=question)
            assert theirs.choices[0].message.content
            assert own.report()["calls"] == calls + 1
        status = await asyncio.to_thread(headrace, state, "status")
        assert "hosted-0" in status.stdout
    finally:
        await asyncio.to_thread(headrace, state, "down", check=False)
        await own.close()
