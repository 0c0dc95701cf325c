from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from inference.adapters.torch import memory_check
from inference.adapters.torch.config import TorchEngineConfig
from inference.adapters.torch.engine import build
from tests.unit.inference.core.test_sizing import LLAMA3_8B, MIXTRAL


def test_missing_paths_are_named(tmp_path):
    with pytest.raises(ValueError, match="model_path: 'gone' does not exist"):
        build(TorchEngineConfig(model_path=tmp_path / "gone"))
    with pytest.raises(ValueError, match="adapter_folder: 'lora' does not exist"):
        build(TorchEngineConfig(model_path=tmp_path, adapter_folder=tmp_path / "lora"))


def test_what_cannot_fit_is_refused_with_the_sum(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA3_8B))
    config = TorchEngineConfig(model_path=tmp_path, kv_tokens=8192)
    monkeypatch.setattr(memory_check, "free_bytes", lambda device: 8 * 2**30)
    with pytest.raises(ValueError, match=r"needs about 1[67]\.\d GiB and 8\.0 GiB are free on cpu; lower kv_tokens"):
        build(config)
    monkeypatch.setattr(memory_check, "free_bytes", lambda device: 32 * 2**30)
    build(config)


def test_eight_bits_take_half_the_room(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA3_8B))
    names = {"model_path": tmp_path, "device": "cuda", "kv_tokens": 65536}
    wide = memory_check.wanted_bytes(TorchEngineConfig(**names, precision="bfloat16"))
    weights = memory_check.wanted_bytes(TorchEngineConfig(**names, precision="fp8"))
    both = memory_check.wanted_bytes(TorchEngineConfig(**names, precision="fp8", kv_precision="fp8"))
    # 7 of the 8 billion weights, and 128 kB of keys and values a token.
    assert wide - weights == pytest.approx(7.0e9, rel=0.02)
    assert weights - both == 65536 * 65536


def test_four_bits_take_a_third_on_a_device(tmp_path):
    """Codes, a scale and a minimum for 32 of them, and tables in eight bits; floats of 32 bits are served in 16."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA3_8B))
    names = {"model_path": tmp_path, "device": "cuda", "kv_tokens": 65536}
    wide = memory_check.wanted_bytes(TorchEngineConfig(**names, precision="bfloat16"))
    four = memory_check.wanted_bytes(TorchEngineConfig(**names, precision="int4"))
    assert wide - four == pytest.approx(7.0e9 * (2 - 0.625) + 1.05e9 * (2 - 1.125), rel=0.01)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA3_8B | {"torch_dtype": "float32"}))
    assert memory_check.wanted_bytes(TorchEngineConfig(**names)) == wide


def test_eight_bits_on_the_cpu_take_half_the_room_of_float16(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA3_8B))
    monkeypatch.setattr(memory_check.native, "load", lambda: None)
    names = {"model_path": tmp_path, "kv_tokens": 65536}
    narrow = memory_check.wanted_bytes(TorchEngineConfig(**names, kv_precision="int8"))
    half = memory_check.wanted_bytes(TorchEngineConfig(**names))
    exact = memory_check.wanted_bytes(TorchEngineConfig(**names, precision="float32"))
    # 65,536 numbers a token, and a scale of two bytes for every 128 of them.
    assert half - narrow == 65536 * (2 * 65536 - 65536 - 1024)
    assert exact - memory_check.wanted_bytes(TorchEngineConfig(**names, precision="float32", kv_precision="int8")) == (
        65536 * (4 * 65536 - 65536 - 1024)
    )

    def not_built():
        raise memory_check.native.NativeUnavailable("not built")

    monkeypatch.setattr(memory_check.native, "load", not_built)
    # Plain torch holds weights and cache in float32.
    assert memory_check.wanted_bytes(TorchEngineConfig(**names)) == exact


def test_a_model_that_the_kernels_lack_is_counted_in_float32(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_check.native, "load", lambda: None)
    config = MIXTRAL | {"architectures": ["MixtralForCausalLM"], "max_position_embeddings": 8192}
    (tmp_path / "config.json").write_text(json.dumps(config))
    wanted = memory_check.wanted_bytes(TorchEngineConfig(model_path=tmp_path))
    assert wanted == pytest.approx(4 * 46.7e9 + 16384 * 4 * 65536, rel=0.01)
    assert memory_check.wanted_bytes(TorchEngineConfig(model_path=tmp_path, precision="bfloat16")) < 0.51 * wanted


def test_a_hub_name_gets_words_that_say_what_to_give(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"model_path: 'meta-llama/Llama-3\.2-1B' does not exist in .*; it looks like"
    ) as hub:
        build(TorchEngineConfig(model_path=Path("meta-llama/Llama-3.2-1B")))
    assert "nothing is downloaded: give the path of a folder" in str(hub.value)
    for path in ("models/one.gguf", "one", "a/b/c", "./models/one"):
        with pytest.raises(ValueError, match="does not exist in") as missing:
            build(TorchEngineConfig(model_path=tmp_path / path if path[0] == "." else Path(path)))
        assert "downloaded" not in str(missing.value)


def test_free_memory_of_this_machine_is_known():
    assert 2**20 < memory_check.free_bytes("cpu") < 2**50


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"speculation": "draft"}, "draft_path belongs"),
        ({"max_running": 64, "step_tokens": 64}, "step_tokens 64 must exceed"),
        ({"kv_tokens": 1}, "kv_tokens must be at least 64"),
        ({"kv_precision": "fp8"}, "kv_precision 'fp8': cpu has auto, int8"),
        ({"kv_precision": "int8", "device": "cuda:1"}, "kv_precision 'int8': cuda:1 has auto, fp8"),
        ({"kv_precision": "int3"}, "kv_precision 'int3': cpu has auto, int8"),
    ],
)
def test_settings_that_cannot_go_together_are_refused(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        TorchEngineConfig(model_path=tmp_path, **changes)


def test_a_machine_without_triton_can_import_the_engine():
    """Nor does a CPU node pay for it where it is there: 66 MB."""
    code = "import sys; sys.modules['triton'] = None; import inference.adapters.torch.engine"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=110)
