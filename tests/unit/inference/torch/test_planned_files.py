"""The planner reads what the files hold: a number of layers that the tensors contradict is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest

from inference import planning
from inference.adapters.model_shape import read_shape
from inference.core.shape import SizingError

from .gguf_files import write_gguf


def with_layers(llama: tuple[Path, Any], folder: Path, layers: int, **fields: Any) -> Path:
    shutil.copytree(llama[0], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers} | fields))
    return folder


def test_layers_are_those_of_the_tensors(llama: tuple[Path, Any], tmp_path: Path) -> None:
    assert read_shape(llama[0])[0].layers == 3
    for layers in (2, 4):
        with pytest.raises(SizingError, match=f"num_hidden_layers is {layers}, but the tensors are of 3 layers"):
            read_shape(with_layers(llama, tmp_path / str(layers), layers))
    # One more that guesses ahead is the model's own, and an index is read before any header.
    assert read_shape(with_layers(llama, tmp_path / "ahead", 2, num_nextn_predict_layers=1))[0].layers == 2
    index = with_layers(llama, tmp_path / "index", 3)
    names = {f"model.layers.{layer}.mlp.up_proj.weight": "a.safetensors" for layer in range(5)}
    (index / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(SizingError, match="the tensors are of 5 layers"):
        read_shape(index)


def test_gguf_layers_and_tables_are_those_of_the_tensors(llama: tuple[Path, Any], tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", llama[1], "llama")
    shape, _ = read_shape(tmp_path / "m.gguf")
    assert (shape.layers, shape.tied) == (3, False)
    write_gguf(tmp_path / "m.gguf", llama[1], "llama", layers=7)
    with pytest.raises(SizingError, match="num_hidden_layers is 7, but the tensors are of 3"):
        read_shape(tmp_path / "m.gguf")


@pytest.mark.parametrize("joined", [False, True])
def test_a_latent_cache_is_read_from_gguf(tmp_path: Path, joined: bool) -> None:
    """DeepSeek's files hold the sizes of a head, or of the joined form with those of a head beside them."""
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "deepseek2")
    for name, value in (
        *(("block_count", 61), ("embedding_length", 7168), ("feed_forward_length", 18432), ("context_length", 4096)),
        *(("attention.head_count", 128), ("attention.head_count_kv", 1 if joined else 128), ("vocab_size", 129280)),
        *(("attention.q_lora_rank", 1536), ("attention.kv_lora_rank", 512), ("rope.dimension_count", 64)),
        *(("attention.key_length", 576 if joined else 192), ("attention.value_length", 512 if joined else 128)),
        *((("attention.key_length_mla", 192), ("attention.value_length_mla", 128)) if joined else ()),
        *(("expert_count", 256), ("expert_used_count", 8), ("expert_feed_forward_length", 2048)),
        *(("expert_shared_count", 1), ("leading_dense_block_count", 3)),
    ):
        writer.add_uint32(f"deepseek2.{name}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    shape, _ = read_shape(tmp_path / "m.gguf")
    assert shape.kv_values(1) == 61 * 576
    # The published count has an output table, which this file leaves out.
    assert shape.weights + shape.embedding_weights == pytest.approx(671.0e9, rel=0.003)


def test_a_damaged_folder_is_named_and_no_traceback(
    llama: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = with_layers(llama, tmp_path / "cut", 3)
    (cut / "model.safetensors").write_bytes(b"\xff" * 64)
    assert planning.main([str(cut)]) == planning.EX_DATA
    assert "model.safetensors: its header is cut off" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert planning.main([str(tmp_path / "empty")]) == planning.EX_DATA
    assert "config.json is missing" in capsys.readouterr().err
