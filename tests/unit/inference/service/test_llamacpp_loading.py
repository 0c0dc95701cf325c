"""What is said when llama.cpp does not start: which file, which setting, and llama.cpp's own words."""

from __future__ import annotations

import hashlib
from pathlib import Path

import gguf
import numpy as np
import pytest

from inference.adapters.llamacpp import loading
from inference.adapters.llamacpp.engine import build
from inference.adapters.llamacpp.loading import errors_in
from inference.adapters.llamacpp.settings import LlamaCppSettings
from inference.adapters.model_files import SMOLLM2
from inference.core.port import EngineError


def settings(path: Path, **others: int) -> LlamaCppSettings:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "0" * 64
    return LlamaCppSettings(model_path=path, model_sha256=sha256, **others)


def write_model(path: Path, **fields: int) -> Path:
    """A vocabulary and a Llama's numbers, with none of its weights."""
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in ({"context_length": 64} | fields).items():
        writer.add_uint32(f"llama.{name.replace('__', '.')}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "ab"])
    writer.add_token_merges(["a b"])
    writer.add_tensor("token_embd.weight", np.zeros((3, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_wrong_path_is_named_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model_path: 'gone\.gguf' does not exist in"):
        build(settings(tmp_path / "gone.gguf"))
    with pytest.raises(ValueError, match=r"'org/model' does not exist .* nothing is downloaded"):
        build(LlamaCppSettings(model_path=Path("org/model"), model_sha256="0" * 64))
    with pytest.raises(ValueError, match=r"is a folder; llama\.cpp takes a GGUF file"):
        build(settings(tmp_path))
    (tmp_path / "text.gguf").write_text("not a model at all")
    with pytest.raises(ValueError, match=r"text\.gguf: not a GGUF file"):
        build(settings(tmp_path / "text.gguf"))


def test_metadata_that_is_missing_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.gguf"
    empty.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    with pytest.raises(ValueError, match=r"empty\.gguf: tokenizer\.ggml\.tokens is missing"):
        build(settings(empty))
    with pytest.raises(ValueError, match=r"no\.gguf: its metadata has no context_length"):
        build(settings(write_model(tmp_path / "no.gguf", context_length=0)))


def test_what_cannot_fit_is_refused_with_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "free_host_bytes", lambda: 1 << 30)
    with pytest.raises(
        ValueError, match=r"needs about 1\.8 GiB, 1\.4 of it for max_running 32 slots of context_length"
    ):
        build(LlamaCppSettings(max_running=32, context_length=2048))
    assert build(LlamaCppSettings(max_running=4, context_length=2048)).default_model == SMOLLM2.name


async def test_a_file_that_llama_cpp_does_not_load_is_named_with_its_words(tmp_path: Path) -> None:
    engine = build(settings(write_model(tmp_path / "hollow.gguf"), max_running=1)).engine
    with pytest.raises(EngineError, match=r"llama\.cpp cannot load hollow\.gguf: .*key not found in model") as failed:
        await engine.start()
    assert "check the input params" not in str(failed.value)
    await engine.close()


def test_llama_cpps_errors_are_its_first_and_each_once() -> None:
    printed = "0.01.2 I srv init: x\n0.01.3 E   load:  wrong\t type\nnoise\n0.01.4 E load: wrong type\n0.02.0 W no\n"
    assert errors_in(printed) == "load: wrong type"
    assert errors_in("".join(f"0.0 E error {i} {'x' * 999}\n" for i in range(9))).count(";") == 3
    assert errors_in("Killed\n") == ""
