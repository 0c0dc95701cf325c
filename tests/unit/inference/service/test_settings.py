"""The node's settings, and the engines' by name."""

from pathlib import Path

import pytest

from inference import engines
from inference.adapters.model_files import SMOLLM2, checked
from inference.app import build
from inference.config import config_type
from mesh.config import ConfigErrors, load

PREFIX = "HEADRACE_INFERENCE_"


def read(**env: str) -> object:
    env = {PREFIX + name: value for name, value in env.items()}
    return load(config_type(env), PREFIX, env)


@pytest.mark.parametrize("name", engines.names())
def test_every_engine_has_settings(name: str) -> None:
    required = {provider: {"UPSTREAM_MODEL": "some-model"} for provider in ("openai", "anthropic", "gemini")}
    required["tensorrt_llm"] = {"MODEL_PATH": "some-folder"}
    config = read(ENGINE=name, **required.get(name, {}))
    assert config.engine == name
    assert isinstance(config.settings, engines.spec(name).settings)


def test_an_engines_settings_are_read_with_the_nodes() -> None:
    config = read(ENGINE="static", ANSWER_TOKENS="7", LISTEN="127.0.0.1:9", MODEL="m")
    assert (config.settings.answer_tokens, config.listen, config.model) == (7, "127.0.0.1:9", "m")


def test_all_mistakes_are_reported_together() -> None:
    with pytest.raises(ConfigErrors) as caught:
        read(ENGINE="static", ANSWER_TOKENS="0", THREADS="2", DRAIN_DELAY_S="-1")
    problems = "\n".join(caught.value.problems)
    assert "ANSWER_TOKENS" in problems
    assert "DRAIN_DELAY_S" in problems
    assert "THREADS: no such setting" in problems


@pytest.mark.parametrize("env", [{}, {"ENGINE": "abacus"}])
def test_an_unknown_engine_is_answered_with_the_known_ones(env: dict[str, str]) -> None:
    with pytest.raises(ConfigErrors, match=", ".join(engines.names())):
        read(**env)


def test_a_model_of_ones_own_needs_its_checksum(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match="MODEL_SHA256"):
        read(ENGINE="llamacpp", MODEL_PATH=str(tmp_path / "model.gguf"))


async def test_another_file_than_the_one_asked_for_is_refused_before_a_port_opens(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF but not this one")
    config = read(ENGINE="llamacpp", MODEL_PATH=str(path), MODEL_SHA256="0" * 64)
    with pytest.raises(ConfigErrors, match=r"model\.gguf: SHA-256 is"):
        await build(config)


async def test_a_missing_file_is_named(tmp_path: Path) -> None:
    config = read(ENGINE="llamacpp", MODEL_PATH=str(tmp_path / "gone.gguf"), MODEL_SHA256="0" * 64)
    with pytest.raises(ConfigErrors, match=r"gone\.gguf"):
        await build(config)


def test_the_packaged_model_is_the_one_that_was_pinned() -> None:
    assert checked(SMOLLM2.path(), SMOLLM2.sha256.upper()) == SMOLLM2.sha256
