"""The control plane's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from mesh.address import ListenAddress
from mesh.lifecycle import ProcessConfig


@dataclass(frozen=True)
class ControlConfig(ProcessConfig):
    """Variables begin with HEADRACE_CONTROL_."""

    # Empty: the address that the stack file gives.
    listen: ListenAddress = ""
    # The stack file; it is followed while the process runs.
    stack: Path = Path("deploy/stacks/local.yaml")
    # Whether faults may be injected: for drills, never where customers are.
    faults: bool = False
    # What one client may have under way to one service or replica.
    max_requests: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 4096
