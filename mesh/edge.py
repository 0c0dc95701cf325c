"""How xDS clients find the control plane: the bootstraps of Envoy at the edge and of proxyless gRPC inside."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import Final

from mesh.address import split
from mesh.stack import Stack

_TEMPLATE: Final = Path(__file__).parents[1] / "deploy" / "envoy" / "bootstrap.yaml"


def render_bootstrap(stack: Stack, state_dir: Path) -> str:
    """Envoy's bootstrap, as YAML. Envoy's admin log goes to `state_dir`.

    Raises ValueError where the stack has no edge.
    """
    if stack.edge is None:
        raise ValueError(f"stack {stack.name!r} has no edge")
    control_host, control_port = split(stack.control)
    admin_host, admin_port = split(stack.edge.admin)
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        control_host=json.dumps(control_host),
        control_port=control_port,
        admin_host=json.dumps(admin_host),
        admin_port=admin_port,
        admin_log=json.dumps(str(state_dir.absolute() / "envoy-admin.log")),
    )


def grpc_bootstrap(control: str, node_id: str, service: str) -> str:
    """What GRPC_XDS_BOOTSTRAP_CONFIG holds in each process: the control plane's host:port and who asks.

    Resources that the control plane takes back are kept by the client (gRFC A53): streams in flight to a replica that
    left the stack go on to their end.
    """
    server = {
        "server_uri": control,
        "channel_creds": [{"type": "insecure"}],
        "server_features": ["xds_v3", "ignore_resource_deletion"],
    }
    return json.dumps({"xds_servers": [server], "node": {"id": node_id, "cluster": service}})
