"""The router's settings, from HEADRACE_ROUTER_*. What it routes to stands in the routing file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from mesh.address import PeerAddress
from mesh.client import Dial
from mesh.lifecycle import ProcessConfig, Seconds

Count = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True)
class RouterConfig(ProcessConfig):
    """One router process."""

    # The routing file.
    config: Path = Path("deploy/stacks/router.yaml")
    # Where the control plane serves its snapshot.
    control: PeerAddress = "127.0.0.1:7000"
    # How replicas are reached: by name through xDS, so that the snapshot's faults and limits apply, or by address.
    dial: Dial = "xds"
    # Generations under way at most; more are refused with RESOURCE_EXHAUSTED.
    max_inflight: Count = 1024
    # The time a request gets whose caller set no deadline.
    default_deadline_s: Seconds = 300.0
    # Requests that Explain remembers.
    recent: Count = 2000
    # How often the routing file is looked at.
    reload_s: Annotated[float, Meta(gt=0)] = 1.0
