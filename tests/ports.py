"""Ports for what tests start and what has to be known before it listens."""

from __future__ import annotations

import functools
import itertools
import socket
from collections.abc import Iterator

# Below the ports that the kernel gives to clients, so that no outgoing connection takes one of ours, and below those of
# the meshes that drills bring up.
_LOWEST, _HIGHEST, _EACH = 10_000, 18_000, 500


def free_ports(count: int = 1) -> int:
    """The first of `count` ports in a row that nobody listens on, and that no other run of the tests is given.

    They come round again only after a few hundred others.
    """
    for base in itertools.islice(_bases(), _EACH):
        ports = range(base, base + count)
        if ports.stop <= _own().stop and all(map(_free, ports)):
            for _ in range(count - 1):
                next(_bases())
            return base
    raise AssertionError("no free ports")


@functools.cache
def _bases() -> Iterator[int]:
    return itertools.cycle(_own())


def _own() -> range:
    return _claim()[1]


@functools.cache
def _claim() -> tuple[socket.socket, range]:
    """This run's share of the ports. The socket tells other runs; it goes with the process, however that ends."""
    for start in range(_LOWEST, _HIGHEST, _EACH):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0headrace-test-ports-{start}")
        except OSError:
            claim.close()
        else:
            return claim, range(start, start + _EACH)
    raise AssertionError("too many runs of the tests at the same time")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
