"""What the kernels are tested on: a device, or Triton's interpreter, which tests/conftest.py chooses."""

from __future__ import annotations

import atexit
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


@atexit.register
def _end_quietly() -> None:
    """Triton's bindings list everything they still hold when the interpreter ends: dozens of lines after the result."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Interpreting a kernel takes seconds of a processor's time, which a busy machine gives out slowly."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the kernels are tested: the CUDA device, else the CPU under the interpreter."""
    pytest.importorskip("triton")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session", autouse=True)
def _count_as_a_device_does() -> None:
    """Two things that the interpreter of Triton 3.9 gets wrong.

    It drops the carry of a number that rounds up to the next power of two, and multiplies the bits of bfloat16
    operands as if they were integers.
    """
    if importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1":
        return
    interpreter = importlib.import_module("triton.runtime.interpreter")
    tl = importlib.import_module("triton.language")
    own_convert, own_dot = interpreter._convert_float, interpreter.InterpreterBuilder.create_dot
    short = {tl.float8e4nv: (torch.float8_e4m3fn, torch.uint8), tl.bfloat16: (torch.bfloat16, torch.uint16)}

    def convert(values: np.ndarray, source: Any, target: Any, rounding: Any) -> np.ndarray:
        if source != tl.float32 or target not in short:
            return own_convert(values, source, target, rounding)
        dtype, bits = short[target]
        rounded = torch.from_numpy(np.ascontiguousarray(values).view(np.float32)).to(dtype)
        return rounded.view(bits).numpy().reshape(values.shape)

    def widen(operand: Any) -> Any:
        if operand.dtype.scalar != tl.bfloat16:
            return operand
        return interpreter.TensorHandle((operand.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def dot(self: Any, a: Any, b: Any, *more: Any) -> Any:
        return own_dot(self, widen(a), widen(b), *more)

    interpreter._convert_float = convert
    interpreter.InterpreterBuilder.create_dot = dot


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)
