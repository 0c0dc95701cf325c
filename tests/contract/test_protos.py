"""The contracts: linted, formatted, compatible with the last release, and their committed stubs in step with them."""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.inference.v1 import inference_pb2
from headrace.router.v1 import router_pb2

ROOT = Path(__file__).resolve().parents[2]
BUF = ROOT / ".tools/node_modules/.bin/buf"

needs_buf = pytest.mark.skipif(not BUF.exists(), reason="buf is not installed: 'make setup' installs it where npm is")


def run(*command: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        check=False,
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=110,
    )


@needs_buf
def test_contracts_follow_the_lint_rules() -> None:
    done = run(BUF, "lint", "protos")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_buf
def test_contracts_are_formatted() -> None:
    done = run(BUF, "format", "protos", "--diff", "--exit-code")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_buf
def test_contracts_break_nothing_that_was_released() -> None:
    done = run(BUF, "breaking", "protos", "--against", "protos/released.binpb")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_buf
def test_what_breaks_a_released_contract_is_found(tmp_path: Path) -> None:
    for path in (ROOT / "protos").rglob("*.proto"):
        copy = tmp_path / path.relative_to(ROOT / "protos")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text().replace("int32 max_tokens = 10;", "int32 max_tokens = 99;"))
    (tmp_path / "buf.yaml").write_bytes((ROOT / "protos/buf.yaml").read_bytes())
    done = run(BUF, "breaking", tmp_path, "--against", "protos/released.binpb")
    assert done.returncode != 0
    assert "max_tokens" in done.stdout


def test_stubs_are_in_step_with_the_contracts(tmp_path: Path) -> None:
    done = run("protos/generate.sh", tmp_path, PYTHON=sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr
    fresh = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.py*") if "__pycache__" not in path.parts}
    committed = ROOT / "protos/gen"
    present = {path.relative_to(committed) for path in committed.rglob("*.py*") if "__pycache__" not in path.parts}
    assert fresh == present, "run 'make stubs'"
    drifted = [str(name) for name in sorted(fresh) if not filecmp.cmp(tmp_path / name, committed / name, shallow=False)]
    assert drifted == [], "run 'make stubs'"


def test_a_routers_messages_are_a_nodes_with_its_own_fields_beside_them() -> None:
    """The router passes a node's messages on as its own, without rebuilding them."""
    node, router = (
        {
            field.number: (field.name, field.type, field.message_type, field.is_repeated)
            for field in message.DESCRIPTOR.fields
        }
        for message in (inference_pb2.GenerateResponse, router_pb2.GenerateResponse)
    )
    reserved = {3}
    assert {number: router[number] for number in node} == node
    assert set(router) - set(node) == reserved
