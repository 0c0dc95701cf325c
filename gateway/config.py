"""The gateway's settings, from HEADRACE_GATEWAY_*."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from gateway.core.model_catalog import Naming
from mesh.address import ListenAddress, PeerAddress, Target
from mesh.lifecycle import ProcessConfig

Count = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]


@dataclass(frozen=True)
class GatewayConfig(ProcessConfig):
    """One gateway process."""

    # The API keys: a YAML list of {id, tenant, sha256}.
    keys: Path = field(kw_only=True)
    # host:port of the HTTP front; port 0 takes a free one.
    http: ListenAddress = "127.0.0.1:0"
    # Where the routers are: a name in the control plane's snapshot, or host:port.
    router: Target = "xds:///router"
    # Where the control plane serves its snapshot; empty: routers are called one call at a time, see docs/adr/0050.
    control: PeerAddress = ""
    # Generations under way at most, over both fronts; more are refused with 429.
    max_inflight: Count = 512
    # The largest request body.
    max_body_bytes: Count = 8 * 1024 * 1024
    # How long a body may take to arrive.
    body_timeout_s: Positive = 30.0
    # The time a request gets; a caller may ask for less, never for more.
    deadline_s: Positive = 600.0
    # Origins whose web pages may call ("https://app.example.org", comma-separated), or "*" for all; empty: none.
    cors_origins: tuple[str, ...] = ()
    # A client that takes nothing of its answer for so long is disconnected.
    stall_s: Positive = 60.0
    # A stream that is silent for so long gets a comment; one that has not begun by twice that time begins then.
    keep_alive_s: Positive = 15.0
    # What answers call their model: the name asked for, what the node that answers calls it, or ("changed") that only
    # where another model answered than that of the chain's first member.
    answer_model: Naming = "changed"
    # How often the list of models is looked at.
    models_s: Positive = 5.0
    # How often the keys file is looked at.
    reload_s: Positive = 1.0
