"""Every kernel is compiled for compute capability 9.0, to machine code: Triton brings all that takes but a device.

In a process of its own, since this one may interpret kernels.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


@pytest.mark.timeout(900)
def test_every_kernel_compiles_for_hopper() -> None:
    """In bfloat16, float8 and 4 bits, with everything optional on, and every shape that tuning would try."""
    command = [sys.executable, str(Path(__file__).with_name("compile_for_hopper.py"))]
    # A minute of a processor's time the first time, when Triton has nothing in its cache.
    done = subprocess.run(command, capture_output=True, text=True, timeout=870, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    compiled = set(done.stdout.split())
    expected = {"_add_norm", "_add_parts", "_decode", "_embed", "_join", "_joined", "_parts", "_prefill", "_quantize"}
    expected |= {"_dequantize", "_draw", "_embed_grouped", "_grouped"}
    assert compiled == expected | {"_rotate_and_store", "_silu_times", "_skinny"}
