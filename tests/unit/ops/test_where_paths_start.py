"""Relative paths start where the user stands, and in a stack file at the file's own folder."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from mesh.stack import parse
from ops.commands.plan import plan, run_module
from ops.local.stack_paths import with_whole_paths
from tests.unit.inference.core.test_sizing import LLAMA3_8B

STACK = """
name: small
control: 127.0.0.1:17000
services:
  router: {kind: router, ports: {grpc: 17200}, env: {HEADRACE_ROUTER_CONFIG: deploy/stacks/router.yaml}}
  tiny:
    kind: inference
    ports: {grpc: 17300}
    env:
      # Beside this file.
      HEADRACE_INFERENCE_MODEL_PATH: models/my model
      HEADRACE_INFERENCE_DRAFT_PATH: 'models/draft.gguf'
      HEADRACE_INFERENCE_ADAPTER_FOLDER: "elsewhere"
      HEADRACE_INFERENCE_ENGINE: torch
      HEADRACE_INFERENCE_MODEL: models
"""


def test_a_plan_is_made_of_what_lies_where_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "config.json").write_text(json.dumps(LLAMA3_8B))
    # Not ours, whatever it is called.
    (tmp_path / "inference.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(typer.Exit) as ended:
        plan(SimpleNamespace(args=["models", "--gpu", "H100", "--json"]))  # type: ignore[arg-type]  # all that is read
    assert ended.value.exit_code == 0
    assert json.loads(capfd.readouterr().out)["parameters"] == pytest.approx(8.03e9, rel=0.001)
    assert run_module("inference", "plan", "meta-llama/Llama-3.1-8B") == 65
    said = capfd.readouterr().err
    assert str(tmp_path) in said
    assert "nothing is downloaded" in said


def test_a_stack_files_paths_start_at_its_folder(tmp_path: Path) -> None:
    for name in ("models/my model", "torch"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "models" / "draft.gguf").write_bytes(b"")
    text = with_whole_paths(STACK, tmp_path / "stack.yaml")
    env = parse(text).service("tiny").env
    assert env["HEADRACE_INFERENCE_MODEL_PATH"] == str(tmp_path / "models/my model")
    assert env["HEADRACE_INFERENCE_DRAFT_PATH"] == str(tmp_path / "models/draft.gguf")
    # Nothing lies there, or it is no path: as it was written.
    assert env["HEADRACE_INFERENCE_ADAPTER_FOLDER"] == "elsewhere"
    assert env["HEADRACE_INFERENCE_ENGINE"] == "torch"
    assert env["HEADRACE_INFERENCE_MODEL"] == "models"
    assert parse(text).service("router").env["HEADRACE_ROUTER_CONFIG"] == "deploy/stacks/router.yaml"
    assert "# Beside this file." in text
    assert with_whole_paths(text, tmp_path / "stack.yaml") == text
