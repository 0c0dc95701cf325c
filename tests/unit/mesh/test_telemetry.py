"""What is known of a call travels with it, and what is not is made up."""

import pytest

from mesh import telemetry

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


async def test_the_callers_ids_and_the_tenant_go_onward() -> None:
    telemetry.enter_scope("req-1", TRACE)
    sent = dict(telemetry.outgoing_metadata("acme"))
    assert sent["x-request-id"] == "req-1"
    assert sent["x-headrace-tenant"] == "acme"
    assert sent["traceparent"][:36] == TRACE[:36]
    assert sent["traceparent"] != TRACE
    assert "x-headrace-tenant" not in dict(telemetry.outgoing_metadata())


@pytest.mark.parametrize("request_id", [None, "", "x" * 129, "line\nbreak"])
async def test_an_unusable_request_id_is_replaced(request_id: str | None) -> None:
    scope = telemetry.enter_scope(request_id, "not a traceparent")
    assert scope.request_id.startswith("req-")
    assert len(scope.trace_id) == 32
    assert int(scope.trace_id, 16) >= 0
