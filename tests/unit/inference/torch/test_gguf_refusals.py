"""GGUF files: what would be another model if it were passed over is refused by file and name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from inference.adapters.torch.loading import ModelError, UnsupportedModel, load_checkpoint
from inference.adapters.torch.runner import RunnerOptions, build_runner

from .conftest import write_model
from .gguf_files import write_gguf


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.logit_scale", 0.5),
        ("llama.attention.clamp_kqv", 8.0),
        ("llama.attention.max_alibi_bias", 8.0),
        ("llama.attention.scale", 0.3),
        ("llama.residual_scale", 0.2),
        ("llama.embedding_scale", 12.0),
        ("llama.rope.dimension_count", 16),
        ("llama.attention.value_length", 64),
        ("llama.rope.scaling.type", "longrope"),
        ("llama.use_parallel_residual", True),
        ("llama.expert_weights_scale", 2.5),
        ("llama.attention.head_count_kv", [2, 2, 1]),
        ("llama.attention.causal", False),
        ("llama.attention.sliding_window_pattern", [True, False, True]),
    ],
)
def test_gguf_fields_that_change_the_mathematics_are_refused_by_name(
    llama: tuple[Path, Any], tmp_path: Path, key: str, value: Any
) -> None:
    write_gguf(tmp_path / "m.gguf", llama[1], "llama", fields={key: value})
    with pytest.raises(UnsupportedModel, match=rf"m\.gguf: {key} "):
        load_checkpoint(tmp_path / "m.gguf")


def test_gguf_tensors_that_nothing_uses_are_refused_by_name(llama: tuple[Path, Any], tmp_path: Path) -> None:
    for name in (
        "blk.0.attn_sinks.weight",
        "blk.0.ffn_gate.0.weight",
        "position_embd.weight",
        "blk.0.ffn_gate_inp.weight",
    ):
        write_gguf(tmp_path / "m.gguf", llama[1], "llama", tensors={name: np.ones(128, np.float32)})
        with pytest.raises(UnsupportedModel, match=rf"m\.gguf: tensor {name} is not part of"):
            load_checkpoint(tmp_path / "m.gguf")


def test_gguf_soft_caps_are_computed(llama: tuple[Path, Any], tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", llama[1], "llama", fields={"llama.final_logit_softcapping": 30.0})
    assert load_checkpoint(tmp_path / "m.gguf").config.logit_softcap == 30.0


def test_gguf_windows_follow_the_files_pattern(tmp_path: Path) -> None:
    model = write_model("gemma3", tmp_path / "m")  # seven layers, windows of 24
    key = "gemma3.attention.sliding_window_pattern"
    for pattern, windows in ((3, (24, 24, 0, 24, 24, 0, 24)), ([True] * 6 + [False], (24,) * 6 + (0,))):
        write_gguf(tmp_path / "m.gguf", model, "gemma3", fields={key: pattern})
        assert load_checkpoint(tmp_path / "m.gguf").config.windows == windows
    write_gguf(tmp_path / "m.gguf", model, "gemma3", fields={key: [True]})
    with pytest.raises(UnsupportedModel, match=key):
        load_checkpoint(tmp_path / "m.gguf")


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q5_1, Kind.Q4_0, Kind.Q4_1])
@pytest.mark.parametrize("precision", ["float32", "auto"])
@pytest.mark.usefixtures("kernels")
def test_a_damaged_block_is_refused_by_file_and_tensor(
    llama: tuple[Path, Any], tmp_path: Path, kind: Kind, precision: Any
) -> None:
    """Infinity where a float or a block's scale lies."""
    path = tmp_path / "m.gguf"
    write_gguf(path, llama[1], "llama", kind)
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == "blk.1.ffn_up.weight")
    infinity = {Kind.F32: np.float32(np.inf).tobytes(), Kind.BF16: b"\x80\x7f"}.get(kind, np.float16(np.inf).tobytes())
    content = bytearray(path.read_bytes())
    content[tensor.data_offset : tensor.data_offset + len(infinity)] = infinity
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.gguf: tensor blk\.1\.ffn_up\.weight holds values that are not finite"):
        build_runner(RunnerOptions(path, precision=precision, num_blocks=8))
