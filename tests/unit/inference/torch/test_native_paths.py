"""Every set of CPU kernels that this machine can run: each is held to torch, and all of them to each other's bits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog.testing
import torch

from inference.adapters.torch.loading import ModelError
from inference.adapters.torch.logits import best_of, candidates
from inference.adapters.torch.native_runner import NativeRunner
from inference.adapters.torch.runner import RunnerOptions, build_runner
from inference.adapters.torch.runner_api import ModelRunner
from inference.native import build, library
from tests.unit.inference.engine.masks import words_of

from .attention_twin import Attention, shape
from .quantized_twin import QuantizedTwin
from .steps import batch, relative_error

pytestmark = pytest.mark.usefixtures("kernels")
TEXT = np.random.default_rng(3).integers(3, 160, size=60).tolist()
STEPS = (
    batch([(0, 0, TEXT[:33])]),
    batch([(0, 33, TEXT[33:34]), (1, 0, TEXT[10:27])]),
    batch([(1, 17, TEXT[27:28]), (0, 34, TEXT[34:38])], rows=[4, 0, 2]),
)


@pytest.fixture(params=build.PATHS)
def path(request: pytest.FixtureRequest) -> str:
    """A set of kernels; those that this CPU lacks instructions for are skipped, and named."""
    if request.param not in library.kernel_paths(library.load()):
        pytest.skip(f"this CPU does not run the kernels {request.param}")
    return str(request.param)


def open_runner(folder: Path, path: str, **options: Any) -> ModelRunner:
    return build_runner(RunnerOptions(folder, num_blocks=64, cpu_kernels=path, **options))


def test_the_fastest_are_chosen_and_the_log_says_which(llama: tuple[Path, Any]) -> None:
    paths = library.kernel_paths(library.load())
    assert list(paths) == [path for path in build.PATHS if path in paths]
    with structlog.testing.capture_logs() as logs:
        runner = open_runner(llama[0], "auto")
    assert isinstance(runner, NativeRunner)
    assert runner.kernels == paths[0]
    assert [log["kernels"] for log in logs if log["event"] == "engine.native_kernels"] == [paths[0]]


def test_kernels_that_a_cpu_cannot_run_are_refused_by_name(llama: tuple[Path, Any]) -> None:
    with pytest.raises(ModelError, match=r"cpu_kernels 'sse9': this CPU runs \w+"):
        open_runner(llama[0], "sse9")


@pytest.mark.parametrize(("precision", "tolerance"), [("int4", 0.03), ("int8", 0.03), ("bfloat16", 0.03)])
def test_model_is_its_torch_twin(llama: tuple[Path, Any], path: str, precision: str, tolerance: float) -> None:
    native, twin = open_runner(llama[0], path, precision=precision), QuantizedTwin(llama[0], precision, 64)
    for step in STEPS:
        actual, expected = native.forward(step), twin.forward(step)
        assert float((actual - expected).pow(2).mean().sqrt() / expected.std()) < tolerance


@pytest.mark.parametrize(("kept", "bound"), [("int8", 1e-3), ("float16", 1e-4)])
@pytest.mark.parametrize("window", [0, 40, 300])
def test_attention_is_its_torch_twin(path: str, kept: str, bound: float, window: int) -> None:
    """Over several parts of a context: blocks of queries that begin and end within them, and single ones."""
    attention = Attention(library.load(), shape(6, 2, 96, window), kept, path)
    rng = torch.Generator().manual_seed(2)
    at = [0, 0]
    for counts in ((250, 17), (1, 1), (270, 3), (1, 40)):
        step = batch([(s, at[s], [0] * count) for s, count in enumerate(counts)], blocks=36)
        at = [position + count for position, count in zip(at, counts, strict=True)]
        q, k, v = (torch.randn(sum(counts), n, 96, generator=rng) for n in (6, 2, 2))
        actual, expected = attention.both(step, (q, k, v))
        assert relative_error(actual, expected) < bound
    attention.native.close()


@pytest.mark.parametrize("precision", ["int4", "int8", "bfloat16"])
def test_a_row_is_the_same_bits_with_any_number_of_others(llama: tuple[Path, Any], path: str, precision: str) -> None:
    """Kernels take other ways for one row, for few, and for as many as fill tiles once and more."""
    runner = open_runner(llama[0], path, precision=precision)
    text = (TEXT * 2)[:100]
    together = runner.forward(batch([(0, 0, text)])).clone()
    for size in (1, 7, 16, 33):
        for start in range(0, 100, size):
            step = batch([(0, start, text[start : start + size])])
            assert torch.equal(runner.forward(step), together[start : start + size])


@pytest.mark.parametrize("kept", ["float16", "int8"])
def test_parts_of_a_context_give_the_same_bits_however_they_are_shared_out(path: str, kept: str) -> None:
    """Of 600 positions: in one step, cut at any place, alone, and beside so many others that one thread reads each."""
    rng = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(600, n, 64, generator=rng) for n in (6, 2, 2))
    whole = Attention(library.load(), shape(6, 2, 64, 0), kept, path)
    expected = whole.alone(batch([(0, 0, [0] * 600)], blocks=40), (q, k, v))
    for cuts in ((1, 2, 599), (300,), (64, 128, 575)):
        parts = Attention(library.load(), shape(6, 2, 64, 0), kept, path)
        for start, end in zip((0, *cuts), (*cuts, 600), strict=True):
            others = [(1, 0, [0] * 70)] if end - start < 5 else []
            step = batch([(0, start, [0] * (end - start)), *others], blocks=40)
            inputs = tuple(torch.cat([x[start:end], x[: 70 * len(others)]]) for x in (q, k, v))
            assert torch.equal(parts.alone(step, inputs)[: end - start], expected[start:end])
        parts.native.close()
    whole.native.close()


def test_what_other_sequences_left_in_memory_does_no_harm(path: str) -> None:
    """A block that was another's, full of numbers that are none, and is now written only in part."""
    rng = torch.Generator().manual_seed(6)
    inputs = tuple(torch.randn(20, n, 64, generator=rng) for n in (6, 2, 2))
    for kept in ("float16", "int8"):
        clean, used = (Attention(library.load(), shape(6, 2, 64, 0), kept, path) for _ in range(2))
        poison = tuple(torch.full((128, n, 64), torch.nan) for n in (6, 2, 2))
        used.alone(batch([(0, 0, [0] * 128)]), poison)
        step = batch([(0, 0, [0] * 20)])
        assert torch.equal(used.alone(step, inputs), clean.alone(step, inputs))
        clean.native.close()
        used.native.close()


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_quantized_models_with_int8_memory_are_the_same_bits_on_every_path(
    llama: tuple[Path, Any], path: str, precision: str
) -> None:
    """Products of integers are exact, and all else is done in one order: an answer may go on on another kind of CPU."""
    fastest = library.kernel_paths(library.load())[0]
    first, other = (open_runner(llama[0], p, precision=precision, kv_precision="int8") for p in (fastest, path))
    long = batch([(0, 0, (TEXT * 5)[:256])], blocks=16)
    for step in (long, *STEPS):
        assert torch.equal(first.forward(step), other.forward(step))


def test_choices_are_the_same_as_torchs(llama: tuple[Path, Any], path: str) -> None:
    runner = open_runner(llama[0], path)
    logits = torch.randn(40, 160, generator=torch.Generator().manual_seed(1))
    allowed = words_of(np.random.default_rng(2).random(logits.shape) < 0.3)
    for mask in (None, allowed):
        assert torch.equal(runner.summarize(logits, mask).best, best_of(logits, mask))
    some = torch.arange(0, 40, 3), torch.full((14,), 0.7), 9, allowed
    assert torch.equal(runner.candidates(logits, *some).values, candidates(logits, *some).values)


@pytest.mark.skipif(shutil.which("nm") is None or shutil.which("g++") is None, reason="needs g++ and nm")
def test_a_function_that_paths_would_share_is_found_when_it_is_built(tmp_path: Path) -> None:
    """The linker keeps one of several functions of a name: an AVX2 path might be given AVX-512's."""
    source = tmp_path / "shared.cpp"
    shared = "template <class T> __attribute__((noinline)) T twice(T x) { return x + x; }\n"
    source.write_text(shared + "namespace avx2 { int double_of(int n) { return twice(n); } }\n")
    job = build.Job(source, tmp_path / "shared.o", "avx2", ("-march=x86-64-v3",))
    with pytest.raises(build.SharedSymbolError, match=r"shared\.cpp defines _Z5twice"):
        build.compile_one("g++", job)
