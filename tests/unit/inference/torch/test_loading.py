"""Model files: GGUF agrees with the folder that it was made from, every block format decodes, bad files are named."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from inference.adapters.torch.loading import (
    ChecksumMismatch,
    ModelError,
    TruncatedModel,
    UnknownArchitecture,
    UnsupportedModel,
    load_checkpoint,
)
from inference.adapters.torch.loading.gguf_file import GgufFile, GgufTensor
from inference.adapters.torch.loading.gguf_weights import GgufWeight
from inference.adapters.torch.loading.weights import quantize
from inference.adapters.torch.runner import RunnerOptions, build_runner

from .gguf_files import write_gguf
from .steps import batch, relative_error

TEXT = np.random.default_rng(6).integers(3, 160, size=40).tolist()
KINDS = [Kind.Q8_0, Kind.Q5_0, Kind.Q5_1, Kind.Q4_0, Kind.Q4_1, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K]
ARCHITECTURES = {
    "llama2": "llama",
    "llama3": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "phi4": "phi3",
    "yarn": "qwen2",
}


@pytest.fixture(scope="module")
def llama_gguf(llama: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "llama.gguf"
    write_gguf(path, llama[1], "llama")
    return path


def test_gguf_agrees_with_transformers(family: tuple[Path, Any], tmp_path: Path) -> None:
    folder, model = family
    text = TEXT[:20] if folder.name == "mistral" else TEXT  # GGUF does not say Mistral's window of 24
    if folder.name == "gemma3":  # GGUF cannot say another scale than the head size's
        model = copy.deepcopy(model)
        for layer in model.model.layers:
            layer.self_attn.scaling = model.config.head_dim**-0.5
    write_gguf(tmp_path / "model.gguf", model, ARCHITECTURES.get(folder.name, folder.name))
    runner = build_runner(RunnerOptions(tmp_path / "model.gguf", precision="float32", num_blocks=8))
    with torch.inference_mode():
        expected = model(torch.tensor([text])).logits[0]
    assert relative_error(runner.forward(batch([(0, 0, text)])), expected) < 1e-4


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q5_0, Kind.Q5_1, Kind.Q4_0, Kind.Q4_1])
@pytest.mark.usefixtures("kernels")
def test_quantized_gguf_is_served_as_it_is(llama: tuple[Path, Any], tmp_path: Path, kind: Kind) -> None:
    """Against float32 over the same file: what remains is the rounding of inputs and of KV memory."""
    write_gguf(tmp_path / "model.gguf", llama[1], "llama", kind)
    native = build_runner(RunnerOptions(tmp_path / "model.gguf", num_blocks=8))
    exact = build_runner(RunnerOptions(tmp_path / "model.gguf", precision="float32", num_blocks=8))
    stored = {Kind.Q8_0: "int8", Kind.Q5_0: "int8", Kind.Q5_1: "int8", Kind.Q4_0: "int4", Kind.Q4_1: "int4"}
    assert native.spec.precision == stored.get(kind, "bfloat16")
    step = batch([(0, 0, TEXT)])
    assert relative_error(native.forward(step), exact.forward(step)) < 0.08


@pytest.mark.parametrize("kind", KINDS)
def test_codes_stand_for_the_values_that_the_library_decodes(kind: Kind, tmp_path: Path) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(1).integers(0, 256, size=(6, 512 // block * size), dtype=np.uint8)
    blocks = raw.reshape(6, -1, size)
    at = {Kind.Q6_K: (size - 2,), Kind.Q8_0: (0,), Kind.Q4_0: (0,), Kind.Q5_0: (0,)}.get(kind, (0, 2))
    for offset in at:  # random bytes are no sane scales
        blocks[:, :, offset : offset + 2] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
    (tmp_path / "raw").write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16) + raw.tobytes())
    tensor = GgufTensor("w", (6, 512), kind, 24, raw.size)
    weight = GgufWeight(GgufFile(tmp_path / "raw"), tensor, np.array([5, 4, 3, 2, 1, 0]))
    expected = gguf.quants.dequantize(raw, kind)[::-1]
    np.testing.assert_array_equal(weight.dense().numpy(), expected)
    grouped = weight.grouped()
    if kind in (Kind.Q5_1, Kind.Q5_K, Kind.Q6_K):
        assert grouped is None
    else:
        assert grouped is not None
        np.testing.assert_allclose(grouped.dense(), expected, atol=1e-5)


@pytest.mark.parametrize(("bits", "levels"), [(4, 15), (8, 127)])
def test_quantizing_is_off_by_at_most_half_a_step(bits: int, levels: int) -> None:
    dense = np.random.default_rng(2).normal(size=(5, 96)).astype(np.float32)
    dense[2, 32:64] = 0.0
    groups = dense.reshape(5, 3, 32)
    span = np.abs(groups).max(axis=2) if bits == 8 else groups.max(axis=2) - groups.min(axis=2)
    error = np.abs(quantize(dense, bits).dense() - dense).reshape(5, 3, 32).max(axis=2)
    assert (error <= span / levels * 0.5 + span * 2e-3 + 1e-6).all()  # float16 scales take the rest


def test_wrong_checksum_is_refused(llama_gguf: Path, llama: tuple[Path, Any]) -> None:
    digest = hashlib.sha256(llama_gguf.read_bytes()).hexdigest()
    assert load_checkpoint(llama_gguf, digest.upper()).revision == digest
    with pytest.raises(ChecksumMismatch, match=digest):
        load_checkpoint(llama_gguf, "0" * 64)
    with pytest.raises(ChecksumMismatch):
        load_checkpoint(llama[0], "0" * 64)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.2, 0.999])
def test_truncated_gguf_is_refused(llama_gguf: Path, tmp_path: Path, share: float) -> None:
    content = llama_gguf.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(content[: max(int(len(content) * share), 6 if share else 0)])
    with pytest.raises(TruncatedModel, match=r"cut\.gguf"):
        load_checkpoint(cut)


def test_other_files_are_refused(llama: tuple[Path, Any], tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("not a model at all")
    with pytest.raises(ModelError, match="not a GGUF"):
        load_checkpoint(tmp_path / "text.gguf")
    with pytest.raises(ModelError, match="does not exist"):
        load_checkpoint(tmp_path / "missing")
    write_gguf(tmp_path / "other.gguf", llama[1], "starcoder2")
    with pytest.raises(UnknownArchitecture, match="starcoder2"):
        load_checkpoint(tmp_path / "other.gguf")
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        load_checkpoint(tmp_path)


def edited(llama: tuple[Path, Any], folder: Path, **changes: Any) -> Path:
    shutil.copytree(llama[0], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def test_folders_that_do_not_fit_are_refused(llama: tuple[Path, Any], tmp_path: Path) -> None:
    with pytest.raises(UnknownArchitecture, match="MambaForCausalLM"):
        load_checkpoint(edited(llama, tmp_path / "a", architectures=["MambaForCausalLM"]))
    with pytest.raises(UnsupportedModel, match="rope_type 'proportional'"):
        load_checkpoint(edited(llama, tmp_path / "b", rope_parameters={"rope_type": "proportional", "factor": 2.0}))
    with pytest.raises(ModelError, match=r"layers\.3\..* is missing"):
        load_checkpoint(edited(llama, tmp_path / "c", num_hidden_layers=4))
    with pytest.raises(ModelError, match="expected"):
        load_checkpoint(edited(llama, tmp_path / "d", intermediate_size=128))
    cut = edited(llama, tmp_path / "e")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(TruncatedModel, match=r"model\.safetensors"):
        load_checkpoint(cut)


def test_revision_changes_with_the_tokenizer(llama: tuple[Path, Any], tmp_path: Path) -> None:
    before = load_checkpoint(llama[0]).revision
    changed = edited(llama, tmp_path / "a")
    (changed / "tokenizer.json").write_text("{}")
    assert load_checkpoint(changed).revision != before
