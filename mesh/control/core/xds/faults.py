"""Faults as HTTP filters. The filters are always in the path, and a fault is a setting of one of them in a route.

So putting a fault in changes routes only: no listener is replaced and no connection drained for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from envoy.extensions.filters.common.fault.v3 import fault_pb2 as common_fault_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.type.v3 import percent_pb2

from mesh.control.core.faults import SLOTS
from mesh.control.core.model import Fault
from mesh.control.core.xds.endpoints import seconds
from mesh.control.core.xds.resources import pack
from mesh.telemetry import TENANT_KEY

TENANT_HEADER: Final = TENANT_KEY
# gRPC codes as HTTP statuses, for calls that are not gRPC. Codes that are not here become 500.
_HTTP_STATUS: Final = {1: 499, 3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 12: 501, 14: 503, 16: 401}


def http_filters(*, faults_on: bool) -> list[Any]:
    """The filters of every path: room for faults, where they are switched on, and the router."""
    slots = [named_filter(_slot(i), fault_pb2.HTTPFault()) for i in range(SLOTS if faults_on else 0)]
    return [*slots, named_filter("router", router_pb2.Router())]


def fault_settings(faults: Iterable[Fault], *, grpc: bool) -> dict[str, Any]:
    """Route settings by filter name that put the faults in. At most SLOTS faults; `grpc` says how to abort."""
    return {_slot(i): pack(_http_fault(fault, grpc=grpc)) for i, fault in enumerate(faults)}


def by_tenant(faults: Iterable[Fault]) -> Mapping[str, tuple[Fault, ...]]:
    """The faults that hit each tenant named in any of them; "" has those that hit everyone else. "" comes last."""
    faults = tuple(faults)
    named = sorted({f.tenant for f in faults if f.tenant})
    return {tenant: tuple(f for f in faults if f.tenant in ("", tenant)) for tenant in (*named, "")}


def _slot(index: int) -> str:
    return f"fault-{index}"


def named_filter(name: str, config: Any) -> Any:
    """A filter of a path, with its settings."""
    return http_connection_manager_pb2.HttpFilter(name=name, typed_config=pack(config))


def _http_fault(fault: Fault, *, grpc: bool) -> Any:
    share = percent_pb2.FractionalPercent(
        numerator=round(fault.percent * 10_000), denominator=percent_pb2.FractionalPercent.MILLION
    )
    settings = fault_pb2.HTTPFault()
    if fault.delay_s:
        settings.delay.CopyFrom(common_fault_pb2.FaultDelay(fixed_delay=seconds(fault.delay_s), percentage=share))
    if fault.abort_code and grpc:
        settings.abort.CopyFrom(fault_pb2.FaultAbort(grpc_status=fault.abort_code, percentage=share))
    elif fault.abort_code:
        status = _HTTP_STATUS.get(fault.abort_code, 500)
        settings.abort.CopyFrom(fault_pb2.FaultAbort(http_status=status, percentage=share))
    return settings
