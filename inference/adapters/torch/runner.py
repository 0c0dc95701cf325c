"""Which runner serves a model: the device seam. Native kernels on a CPU that has them, plain torch elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from .loading import load_checkpoint
from .runner_api import ModelRunner
from .torch_runner import TorchRunner

Precision = Literal["auto", "float32", "bfloat16", "int8", "int4"]


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """What to load and how. `precision` "auto" keeps what the file stores, as near as the device's kernels can."""

    path: Path
    sha256: str | None = None
    device: str = "cpu"
    precision: Precision = "auto"
    num_blocks: int = 1024
    threads: int = 2


def build_runner(options: RunnerOptions) -> ModelRunner:
    """Load a model. Takes seconds. Raises ModelError when the files are not a model that can be served."""
    checkpoint = load_checkpoint(options.path, options.sha256)
    device = torch.device(options.device)
    dtype = torch.float32 if device.type == "cpu" or options.precision == "float32" else torch.bfloat16
    return TorchRunner(checkpoint, device, dtype, options.num_blocks)
