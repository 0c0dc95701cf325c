"""Channels to other services. A target is `xds:///name` (the control plane's snapshot) or an address."""

from __future__ import annotations

import grpc

# A prompt of the largest context with images fits; what is larger was refused at the edge.
MAX_MESSAGE_BYTES = 32 * 1024 * 1024

_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A peer that was stopped (SIGSTOP) or cut off answers no ping: its streams end within the sum of the two.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # Replicas come back at once after a restart: reconnecting may not back off for minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How long one attempt at connecting may take, handshake included; gRPC names it so, and a refusal ends it at once.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Retries are made by the resilience stack, where they are counted.
    ("grpc.enable_retries", 0),
)


def open_channel(target: str) -> grpc.aio.Channel:
    """A channel without transport security: east-west traffic is encrypted by the platform, see docs/adr.

    Connects on first use. Close it with `await channel.close()`.
    """
    return grpc.aio.insecure_channel(target, options=_OPTIONS)
