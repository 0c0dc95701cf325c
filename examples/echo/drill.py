"""The drill: one of two replicas is killed under load, and another is drained. No call may be lost.

    PYTHONPATH=examples python -m echo.drill STACK_FILE

Exit code 0: nothing was lost. The stack file says where the control plane and the replicas listen.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from echo.client import EchoClient
from mesh.client import ServiceClient
from mesh.discovery import SnapshotWatcher
from mesh.stack import Replica, Stack, load

_CALLS = 300
_PATIENCE_S = 60.0


async def start(module: str, **settings: str) -> asyncio.subprocess.Process:
    """A process of the stack."""
    prefix = f"HEADRACE_{module.rpartition('.')[2].upper()}_"
    env = os.environ | {f"{prefix}{name}": value for name, value in settings.items()} | {f"{prefix}LOG_LEVEL": "error"}
    return await asyncio.create_subprocess_exec(sys.executable, "-m", module, env=env)


async def start_replica(replica: Replica) -> asyncio.subprocess.Process:
    """A replica of the service."""
    return await start("echo", LISTEN=replica.address, REPLICA=replica.id, SERVICE=replica.service)


async def all_up(peers: ServiceClient, count: int) -> None:
    """Return when calls go to so many replicas."""
    async with asyncio.timeout(_PATIENCE_S):
        while peers.up < count:  # noqa: ASYNC110 - the client has no event for it, and only a drill waits
            await asyncio.sleep(0.01)


async def drill(path: Path, stack: Stack) -> int:
    """How many of the calls were lost."""
    replicas = list(stack.each_replica())
    processes = [await start("mesh.control", STACK=str(path))]
    processes += [await start_replica(replica) for replica in replicas]
    watcher, peers = SnapshotWatcher(stack.control), ServiceClient("xds:///echo", dial="address")
    client, lost = EchoClient(peers), 0
    following = [asyncio.create_task(work) for work in (watcher.run(), peers.follow(watcher))]
    try:
        await all_up(peers, len(replicas))
        for number in range(_CALLS):
            if number == _CALLS // 3:
                processes[1].kill()
                await processes[1].wait()
                processes[1] = await start_replica(replicas[0])
            if number == 2 * _CALLS // 3:
                await all_up(peers, len(replicas))
                processes[2].send_signal(signal.SIGTERM)
            try:
                lost += await client.say(f"call {number}", _PATIENCE_S) != f"call {number}"
            except Exception as error:
                print(f"call {number}: {error}", file=sys.stderr)
                lost += 1
        return lost + (await processes[2].wait() != 0)
    finally:
        for task in following:
            task.cancel()
        await peers.close()
        for process in processes:
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(*(process.wait() for process in processes))


if __name__ == "__main__":
    file = Path(sys.argv[1])
    lost = asyncio.run(drill(file, load(file)))
    print(f"{_CALLS} calls, {lost} lost")
    sys.exit(1 if lost else 0)
