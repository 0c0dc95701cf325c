"""`python -m ops.drills.provider`: the scriptable provider as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys

from ops.drills.provider.app import Provider, ProviderOptions
from ops.failure import ExitCode


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM or SIGINT. The first line on stdout is JSON with both ports."""
    return asyncio.run(_serve(_options(arguments)))


def _options(arguments: list[str]) -> ProviderOptions:
    parser = argparse.ArgumentParser(prog="python -m ops.drills.provider", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="where callers ask; 0 takes a free one")
    parser.add_argument("--admin-port", type=int, default=0, help="where faults are set; 0 takes a free one")
    parser.add_argument("--answer-tokens", type=int, default=32, help="words in an answer")
    parser.add_argument("--first-token-s", type=float, default=0.0, help="seconds before the first word")
    parser.add_argument("--token-interval-s", type=float, default=0.0, help="seconds between words")
    return ProviderOptions(**vars(parser.parse_args(arguments)))


async def _serve(options: ProviderOptions) -> int:
    provider = Provider(options)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await provider.start()
    except OSError as error:
        print(f"cannot listen: {error}", file=sys.stderr)
        return ExitCode.UNAVAILABLE
    print(json.dumps({"port": provider.port, "admin_port": provider.admin_port}), flush=True)
    await stop.wait()
    await provider.close()
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
