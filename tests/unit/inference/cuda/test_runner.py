"""The CUDA runner against the reference in plain torch: the same models, the same steps, the same logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf

pytest.importorskip("triton")

from inference.adapters.torch import logits as twin
from inference.adapters.torch.cuda.graphs import BUCKETS
from inference.adapters.torch.cuda.kernels.skinny import Shape
from inference.adapters.torch.cuda.launching import LaunchingRunner
from inference.adapters.torch.cuda.runner import CudaRunner
from inference.adapters.torch.loading import Checkpoint, ModelError, UnsupportedModel, load_checkpoint
from inference.adapters.torch.runner_api import StepBatch
from inference.adapters.torch.torch_runner import TorchRunner
from tests.unit.inference.engine.masks import words_of
from tests.unit.inference.torch.steps import batch, relative_error

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 96,
    "max_position_embeddings": 128,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
FAMILIES = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, tie_word_embeddings=False)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**SMALL, sliding_window=12)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**SMALL)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**SMALL)),
}


@pytest.fixture(scope="session", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return _write(FAMILIES[request.param], tmp_path_factory.mktemp("model") / request.param)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return _write(FAMILIES["llama"], tmp_path_factory.mktemp("model") / "llama")


def _write(make: Callable[[], hf.PreTrainedModel], folder: Path) -> Checkpoint:
    # Before the weights are drawn, or they depend on which tests ran first.
    torch.manual_seed(1)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return load_checkpoint(folder)


def _runner(checkpoint: Checkpoint, device: torch.device, precision: str = "float32", **more) -> CudaRunner:
    return CudaRunner(checkpoint, device, precision, 24, **{"graph_rows": 4} | more)


def _steps() -> list[StepBatch]:
    """Prompts beside each other; a chunk and a decode row; a decode step in the middle of a graph's size."""
    rng = np.random.default_rng(5)
    long, short, chunk = (rng.integers(3, 96, n).tolist() for n in (18, 2, 5))
    return [
        batch([(0, 0, long), (1, 0, short)], rows=[17, 19]),
        batch([(1, 2, chunk), (0, 18, [7])]),
        batch([(0, 19, [8]), (1, 7, [9]), (2, 0, [3])]),
    ]


def test_logits_are_the_references(checkpoint: Checkpoint, device: torch.device) -> None:
    """In float32, over prompts, chunks and decode steps, with biases, head norms and windows."""
    runner, reference = _runner(checkpoint, device), TorchRunner(checkpoint, device, torch.float32, 24)
    assert isinstance(runner, LaunchingRunner)
    for step in _steps():
        actual, expected = runner.forward(step), reference.forward(step)
        assert actual.dtype == torch.float32
        assert relative_error(actual, expected) < 1e-4


def test_launched_steps_take_tokens_from_the_device(llama: Checkpoint, device: torch.device) -> None:
    """Greedy decoding with the host never told a token, in a graph and beside a prompt."""
    runner, reference = _runner(llama, device), TorchRunner(llama, device, torch.float32, 24)
    first = batch([(0, 0, [5, 6, 7]), (1, 0, [9, 8])], rows=[2, 4])
    launched = runner.launch(first, np.full(5, -1, np.int32))
    tokens = reference.forward(first).argmax(dim=-1)
    assert launched.drawn.tolist() == tokens.tolist() == launched.summary.best.tolist()
    # The rows have changed places, and a newcomer stands between them.
    known = batch([(1, 2, [int(tokens[1])]), (2, 0, [11, 12]), (0, 3, [int(tokens[0])])], rows=[0, 2, 3])
    unread = batch([(1, 2, [0]), (2, 0, [11, 12]), (0, 3, [0])], rows=[0, 2, 3])
    launched = runner.launch(unread, np.array([1, -1, -1, 0], np.int32))
    tokens = reference.forward(known).argmax(dim=-1)
    assert launched.drawn.tolist() == tokens.tolist()
    # As a sampler does that drew another token.
    launched.drawn[2] = 33
    known = batch([(0, 4, [33]), (2, 2, [int(tokens[1])])])
    unread = batch([(0, 4, [0]), (2, 2, [0])])
    launched = runner.launch(unread, np.array([2, 1], np.int32))
    assert relative_error(launched.logits, reference.forward(known)) < 1e-4
    assert launched.summary.entropy.shape == (2,)


def test_decode_steps_replay_the_next_larger_graph(llama: Checkpoint, device: torch.device) -> None:
    """A batch that fits none is run without; a smaller one is padded and its padding harms nobody."""
    runner, reference = _runner(llama, device), TorchRunner(llama, device, torch.float32, 24)
    assert [runner._graphs.fitting(rows) and runner._graphs.fitting(rows).rows for rows in range(1, 6)] == [
        1,
        2,
        4,
        4,
        None,
    ]
    for count in (3, 1, 5):
        step = batch([(s % 3, 0 if s < 3 else s, [10 + s]) for s in range(count)][:3])
        assert relative_error(runner.forward(step), reference.forward(step)) < 1e-4
    assert tuple(sorted(BUCKETS)) == BUCKETS


def test_logits_are_the_callers_to_change(llama: Checkpoint, device: torch.device) -> None:
    """As penalties and grammars do, outside of the runner."""
    logits = _runner(llama, device).forward(batch([(0, 0, [5]), (1, 0, [6])]))
    logits[0, 3] = float("-inf")
    assert logits[0, 3] == float("-inf")


def test_what_a_mask_rules_out_is_not_drawn(llama: Checkpoint, device: torch.device) -> None:
    """As the torch twin has it; the confidence is that of the model's own distribution."""
    runner = _runner(llama, device)
    logits = torch.randn(3, 9001, device=device)
    allowed = words_of(np.random.default_rng(1).random((3, 9001)) < 0.1).to(device)
    actual, expected = runner.summarize(logits, allowed), twin.summarize(logits, allowed)
    assert torch.equal(actual.best, expected.best)
    for field in ("best_logprob", "margin", "entropy", "logsumexp"):
        torch.testing.assert_close(getattr(actual, field), getattr(expected, field), rtol=1e-4, atol=1e-4)
    some = torch.tensor([2, 0], device=device), torch.tensor([0.5, 2.0], device=device), 30, allowed
    drawn_from, wanted = runner.candidates(logits, *some), twin.candidates(logits, *some)
    assert torch.equal(drawn_from.tokens, wanted.tokens)
    torch.testing.assert_close(drawn_from.logsumexp, wanted.logsumexp, rtol=1e-4, atol=1e-4)


def test_warming_up_touches_nobodys_memory(llama: Checkpoint, device: torch.device) -> None:
    """Prompts are run that no request sent, before there are any; what the pages hold stays as it was."""
    runner = _runner(llama, device)
    runner.forward(batch([(0, 0, [5, 6, 7])]))
    held = runner._memory._memory[:, :, :-1].clone()
    runner.warm()
    assert torch.equal(runner._memory._memory[:, :, :-1], held)
    assert runner._memory._memory[:, :, -1].any()


def test_steps_without_logits(llama: Checkpoint, device: torch.device) -> None:
    """A chunk in the middle of a prompt."""
    runner = _runner(llama, device)
    step = batch([(0, 0, [4, 5, 6])], rows=[])
    assert runner.forward(step).shape == (0, 96)
    assert len(runner.launch(step, np.full(3, -1, np.int32)).drawn) == 0


def test_copied_blocks_hold_the_same(llama: Checkpoint, device: torch.device) -> None:
    """A sequence goes on from another's block."""
    runner = _runner(llama, device)
    runner.forward(batch([(0, 0, [5, 6, 7])]))
    expected = runner.forward(batch([(0, 3, [8])])).clone()
    source, target = int(batch([(0, 0, [1])]).block_tables[0, 0]), int(batch([(1, 0, [1])]).block_tables[0, 0])
    runner.copy_blocks([(source, target)])
    assert torch.equal(runner.forward(batch([(1, 3, [8])])), expected)


def test_products_by_the_skinny_kernel_are_the_librarys(llama: Checkpoint, device: torch.device) -> None:
    """Whatever is measured to be faster, it gives the same logits."""
    runner, step = _runner(llama, device), batch([(0, 0, [5]), (1, 0, [6])])
    expected = runner.forward(step).clone()
    chosen = _runner(llama, device)
    choices = chosen._network.choices.shapes
    choices.clear()
    choices.update({(2, *product.size): Shape(16, 32, 2) for product in chosen._network.products()})
    assert relative_error(chosen.forward(step), expected) < 1e-4


def test_float8_keeps_close(llama: Checkpoint, device: torch.device) -> None:
    """Weights and rows in eight bits, keys and values too: the logits point the same way."""
    reference = TorchRunner(llama, device, torch.float32, 24)
    for kv_precision in ("auto", "fp8"):
        runner = _runner(llama, device, "fp8", kv_precision=kv_precision)
        assert runner.spec.precision == "fp8"
        for step in _steps()[:2]:
            alike = torch.cosine_similarity(runner.forward(step), reference.forward(step), dim=-1)
            assert float(alike.min()) > 0.9
    assert runner.spec.kv_bytes_per_token * 2 == _runner(llama, device, "bfloat16").spec.kv_bytes_per_token


def test_refusals_name_what_is_not_there(llama: Checkpoint, device: torch.device, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="int8"):
        _runner(llama, device, "int8")
    config = hf.Gemma3TextConfig(**SMALL, query_pre_attn_scalar=16)
    with pytest.raises(UnsupportedModel, match="gemma3"):
        _runner(_write(lambda: hf.Gemma3ForCausalLM(config), tmp_path / "gemma"), device)
