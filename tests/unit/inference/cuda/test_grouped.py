"""Weights in 4 and 8 bits: packed, widened in kernels, and whole models of them, against what their codes stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers as hf

pytest.importorskip("triton")

from inference.adapters.torch.cuda.grouped import Codes, GroupedWeight, pack, quantize
from inference.adapters.torch.cuda.kernels.grouped import dequantize, embed_grouped, grouped_product
from inference.adapters.torch.cuda.kernels.skinny import Shape
from inference.adapters.torch.cuda.linear import Choices, GroupedLinear
from inference.adapters.torch.cuda.rows import Rows
from inference.adapters.torch.cuda.runner import CudaRunner
from inference.adapters.torch.loading import Checkpoint, ModelError, load_checkpoint
from inference.adapters.torch.loading import weights as loading
from inference.adapters.torch.torch_runner import TorchRunner
from inference.core.sizing import WEIGHT_BYTES
from tests.unit.inference.torch.steps import batch, relative_error

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 96,
    "max_position_embeddings": 128,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}


def _codes(height: int, width: int, bits: int, device: torch.device) -> Codes:
    """Every code, scales of either sign's minimum, and groups of nothing but their minimum."""
    codes = torch.randint(0, 2**bits, (height, width), dtype=torch.uint8)
    scales, minimums = torch.rand(2, height, width // 32).half()
    scales[0, 0] = 0.0
    return Codes(codes.to(device), scales.to(device), (minimums * 9 - 4).to(device), bits)


def _dense(part: Codes) -> torch.Tensor:
    groups = part.codes.float().unflatten(1, (-1, 32))
    return (groups * part.scales.float()[:, :, None] + part.minimums.float()[:, :, None]).flatten(1)


@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_is_that_of_the_cpus_loader(device: torch.device, bits: int) -> None:
    """The same file gives the same codes wherever it is served; a group of zeros and one of equals among them."""
    dense = torch.randn(7, 96) * torch.logspace(-4, 2, 7)[:, None]
    dense[0, :32], dense[1, 32:64] = 0.0, 3.0
    expected, actual = loading.quantize(dense.numpy(), bits), quantize(dense.to(device), bits)
    assert np.array_equal(actual.codes.cpu().numpy(), expected.codes)
    assert np.array_equal(actual.scales.float().cpu().numpy(), expected.scales)
    assert np.array_equal(actual.minimums.float().cpu().numpy(), expected.minimums)


@pytest.mark.parametrize(("bits", "width"), [(4, 256), (4, 288), (8, 128), (8, 32), (8, 288)])
def test_unpacked_weights_are_what_was_packed(device: torch.device, bits: int, width: int) -> None:
    """Also where the last block is not full."""
    part = _codes(70, width, bits, device)
    torch.testing.assert_close(dequantize(pack([part]), torch.float32), _dense(part), rtol=1e-5, atol=2e-4)


def test_parts_of_different_bits_share_a_product(device: torch.device) -> None:
    """As a file's query and value projections may have; nothing is rounded again."""
    parts = [_codes(5, 64, 4, device), _codes(3, 64, 8, device)]
    packed = pack(parts)
    assert (packed.bits, packed.height) == (8, 8)
    expected = torch.cat([_dense(part) for part in parts])
    torch.testing.assert_close(dequantize(packed, torch.float32), expected, rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("rows", "split", "bias"), [(1, 1, True), (3, 2, False), (3, 4, True), (70, 1, False)])
def test_product(device: torch.device, bits: int, rows: int, split: int, bias: bool) -> None:
    """Sizes that fill no tile, in one part and in more than there are blocks of columns."""
    part = _codes(90, 544, bits, device)
    x = torch.randn(rows, 544, device=device)
    added = torch.randn(90, device=device) if bias else None
    product = grouped_product(x, pack([part]), added, torch.float32, Shape(strip=64, split=split, stages=2))
    expected = F.linear(x, _dense(part), added)
    assert relative_error(product, expected) < 1e-5


def test_product_in_bfloat16_multiplies_what_dequantizing_gives(device: torch.device) -> None:
    """So that a prompt and an answer see the same weights, whichever way was measured to be faster."""
    packed = pack([_codes(64, 256, 4, device)])
    x = torch.randn(4, 256, device=device).bfloat16()
    product = grouped_product(x, packed, None, torch.float32, Shape(strip=64))
    expected = x.float() @ dequantize(packed, torch.bfloat16).float().T
    assert relative_error(product, expected) < 1e-5


def test_a_product_goes_the_way_that_was_measured_for_the_next_more_rows(device: torch.device) -> None:
    """None is the library; beyond what was measured the last holds."""
    part = _codes(64, 64, 4, device)
    choices = Choices()
    linear = GroupedLinear(pack([part]), None, choices, torch.float32)
    key = 64, 64, "int4"
    # Small enough for float32 rows.
    wide, thin = Shape(strip=128, stages=2, tile=32), Shape(strip=64, split=2, stages=2)
    choices.rows = 2, 8, 32
    choices.shapes.update({(2, *key): thin, (8, *key): None, (32, *key): wide})
    assert [choices.nearest(n, key, wide) for n in (1, 2, 5, 9, 500)] == [thin, thin, None, wide, wide]
    for rows in (2, 5, 20, 40):
        x = torch.randn(rows, 64, device=device)
        assert relative_error(linear(Rows(x)), x @ _dense(part).T) < 1e-5


@pytest.mark.parametrize("bits", [4, 8])
def test_embedding(device: torch.device, bits: int) -> None:
    """Rows out of a table in groups, for tokens of the host and of the device."""
    part = _codes(10, 96, bits, device)
    tokens = torch.tensor([3, 0, 7], dtype=torch.int32, device=device)
    sources = torch.tensor([-1, 1, -1], dtype=torch.int32, device=device)
    drawn = torch.tensor([9, 5], device=device)
    rows = embed_grouped(pack([part]), tokens, sources, drawn, 2.0, torch.float32)
    torch.testing.assert_close(rows, 2.0 * _dense(part)[[3, 5, 7]], rtol=1e-5, atol=4e-4)


def _llama(**changes) -> hf.PreTrainedModel:
    torch.manual_seed(1)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


class _Held:
    """A weight that is what its codes stand for."""

    def __init__(self, dense: torch.Tensor) -> None:
        self.shape, self.bits, self._dense = tuple(dense.shape), 32, dense

    def dense(self) -> torch.Tensor:
        return self._dense

    def grouped(self) -> None:
        return None


def _twin(checkpoint: Checkpoint, device: torch.device, bits) -> TorchRunner:
    """The plain runner over the numbers that each matrix's codes stand for; `bits` says how many, by name."""

    def held(name: str, weight: loading.Weight) -> _Held:
        dense, grouped = weight.dense().float(), weight.grouped()
        if dense.dim() == 2:
            wanted = 8 if name in ("embed_tokens.weight", "lm_head.weight") else bits(weight)
            if grouped is None or grouped.bits > wanted:
                grouped = loading.quantize(dense.numpy(), wanted)
            dense = torch.from_numpy(grouped.dense())
        return _Held(dense)

    weights = {name: held(name, weight) for name, weight in checkpoint.weights.items()}
    return TorchRunner(Checkpoint(checkpoint.config, weights, "twin"), device, torch.float32, 24)


def _steps():
    rng = np.random.default_rng(5)
    long, short = (rng.integers(3, 96, n).tolist() for n in (18, 2))
    return [batch([(0, 0, long), (1, 0, short)], rows=[17, 19]), batch([(0, 18, [7]), (1, 2, [9])])]


@pytest.mark.parametrize(("precision", "tied"), [("int4", False), ("int8", True)])
def test_float_checkpoints_are_rounded_when_loaded(
    device: torch.device, tmp_path: Path, precision: str, tied: bool
) -> None:
    """The logits are those of plain torch over the rounded weights; the tables keep 8 bits."""
    _llama(tie_word_embeddings=tied).save_pretrained(tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    runner = CudaRunner(checkpoint, device, precision, 24, graph_rows=4, dtype=torch.float32)
    assert runner.spec.precision == precision
    twin = _twin(checkpoint, device, lambda weight: int(precision[3:]))
    for step in _steps():
        assert relative_error(runner.forward(step), twin.forward(step)) < 1e-4


def test_a_file_keeps_what_it_stores_matrix_by_matrix(device: torch.device, tmp_path: Path) -> None:
    """A 4-bit file whose value projections have 8 bits, as files mix them, in the precision "auto".

    Its tables have 4 bits, and more would say nothing more.
    """
    kinds = pytest.importorskip("gguf").GGMLQuantizationType
    from tests.unit.inference.torch.gguf_files import write_gguf  # noqa: PLC0415 - it needs the library

    path = tmp_path / "mixed.gguf"
    write_gguf(path, _llama(), "llama", kinds.Q4_1, {"v_proj": kinds.Q8_0})
    checkpoint = load_checkpoint(path)
    runner = CudaRunner(checkpoint, device, "auto", 24, graph_rows=4, dtype=torch.float32)
    assert runner.spec.precision == "int4"
    twin = _twin(checkpoint, device, lambda weight: weight.bits)
    for step in _steps():
        assert relative_error(runner.forward(step), twin.forward(step)) < 1e-4
    held = [product.size[2] for product in runner._network.products()]
    assert held == ["int8", "int4", "int4", "int4"] * 2 + ["int4"]


def test_in_bfloat16_it_stays_close(device: torch.device, tmp_path: Path) -> None:
    """As it is served: rows and sums of a layer in bfloat16."""
    _llama().save_pretrained(tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    runner = CudaRunner(checkpoint, device, "int4", 24, graph_rows=4)
    twin = _twin(checkpoint, device, lambda weight: 4)
    for step in _steps():
        assert relative_error(runner.forward(step), twin.forward(step)) < 0.05


def test_widths_that_fill_no_groups_are_refused_by_name(device: torch.device, tmp_path: Path) -> None:
    _llama(intermediate_size=40).save_pretrained(tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    for precision in ("int4", "fp8"):
        with pytest.raises(ModelError, match=rf"{precision}.*intermediate size 40"):
            CudaRunner(checkpoint, device, precision, 24)


def test_a_packed_weight_takes_what_is_planned_for_it(device: torch.device) -> None:
    """Bytes of a weight by `headrace plan`'s own table."""
    for bits in (4, 8):
        packed: GroupedWeight = pack([_codes(64, 512, bits, device)])
        held = packed.words.nbytes + packed.pairs.nbytes
        assert held == WEIGHT_BYTES[f"int{bits}"] * 64 * 512
