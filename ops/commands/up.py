"""`headrace up` and `headrace down`: the whole mesh on this machine."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mesh.stack import Service, Stack
from ops import console
from ops.conversation import connect, models
from ops.failure import ExitCode, Failure
from ops.keystore import KeyStore
from ops.local.given import Given, read_given, remember, remembered, since_started
from ops.local.lock import locked
from ops.local.ports import listeners, require_free
from ops.local.processes import processes
from ops.local.render import write_configuration
from ops.local.starting import Progress, wait_ready
from ops.local.supervisor import Supervisor
from ops.session import invocation_of, state_of, wait_for
from ops.state import CHECKOUT, StateDir, write_private

_LOCAL_STACK: Final = CHECKOUT / "deploy/stacks/local.yaml"
_DEV_KEY: Final = "dev"
# Every process stops at the same time; the slowest drain decides.
_STOP_SLACK_S: Final = 15.0


def up(
    context: typer.Context,
    stack: Annotated[
        Path | None,
        typer.Option(help=f"The stack file to start.  [default: {_LOCAL_STACK.relative_to(CHECKOUT)}]", metavar="FILE"),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until the mesh is ready.", min=1)] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address and the key as JSON.")] = False,
) -> None:
    """Start the mesh, wait until it answers, and print how to call it."""
    state = state_of(context)
    if stack is not None or not Supervisor(state).alive():
        # Before anything is made: a wrong file leaves no trace.
        read_given(stack or _LOCAL_STACK)
    state.create()
    with locked(state.lock, timeout, console.say):
        if Supervisor(state).alive():
            _require_unchanged(state, stack)
            running, headline = state.load_stack(), "The mesh is up already"
            wait_for(_wait(running, state, timeout))
        else:
            running, seconds = _start(state, read_given(stack or _LOCAL_STACK), timeout)
            headline = f"The mesh is up after {seconds:.1f} s"
    _print_address(running, state, headline, invocation_of(context).typed, as_json)


def _require_unchanged(state: StateDir, file: Path | None) -> None:
    """Raise Failure where the stack file asks for another mesh than the one that was started."""
    then = remembered(state)
    if then is None or (file is None and not Path(then.path).exists()):
        return
    now = read_given(file or Path(then.path))
    running = state.load_stack()
    differs = since_started(then.stack, running, now.stack)
    if not differs:
        return
    lines = "".join(f"\n    {line}" for line in differs)
    again = f"headrace down && headrace up --stack {shlex.quote(now.path)}"
    counts = [line for line in differs if ".replicas: " in line]
    step = f"to apply it: {again}"
    if len(counts) == len(differs):
        wanted = " ".join(f"{one.name}={one.replicas}" for one in now.stack.services if _rescaled(running, one))
        step = f"without a dropped request: headrace scale {wanted}; or start anew: {again}"
    raise Failure(
        f"the mesh is up, and goes on as it was: {now.path} has changed since it was started{lines}",
        step,
        ExitCode.NEGATIVE,
    )


def _rescaled(running: Stack, now: Service) -> bool:
    before = running.service(now.name)
    return before is not None and before.replicas != now.replicas


def _start(state: StateDir, given: Given, timeout_s: float) -> tuple[Stack, float]:
    """Start the mesh; returns its stack, and how long it took. Whatever ends this early stops what was started."""
    supervisor = Supervisor(state)
    if supervisor.running():
        raise Failure("the mesh is still stopping", "wait until it has: headrace down")
    wanted = given.stack
    require_free(listeners(wanted))
    write_private(state.stack, given.text)
    remember(given, state)
    KeyStore(state.keys).ensure(_DEV_KEY, _DEV_KEY, state.dev_key)
    write_configuration(wanted, state)
    _clear_logs(state)
    try:
        supervisor.start()
        progress = wait_for(_wait(wanted, state, timeout_s))
    except BaseException:
        console.say("[dim]stopping what was started[/]")
        supervisor.shutdown(_stop_deadline(wanted, state))
        raise
    return wanted, progress.seconds


def down(context: typer.Context) -> None:
    """Stop the mesh: every process drains, then ends. Does nothing where none is running."""
    state = state_of(context)
    supervisor = Supervisor(state)
    if not supervisor.running():
        console.say("no mesh is running")
        return
    started = time.monotonic()
    supervisor.shutdown(_stop_deadline(state.load_stack(), state))
    console.say(f"the mesh is down after {time.monotonic() - started:.1f} s")


async def _wait(stack: Stack, state: StateDir, timeout_s: float) -> Progress:
    specs = processes(stack, state)
    key = state.dev_key.read_text(encoding="utf-8").strip()
    if not console.err.is_terminal:
        return await wait_ready(stack, state, specs, key=key, timeout_s=timeout_s, show=_LineByLine())
    with Live(console=console.err, transient=True, auto_refresh=False) as live:

        def show(progress: Progress) -> None:
            live.update(_table(progress), refresh=True)

        return await wait_ready(stack, state, specs, key=key, timeout_s=timeout_s, show=show)


class _LineByLine:
    """Shows progress where no terminal is: a line when something changed."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, progress: Progress) -> None:
        missing = [f"{one.name} ({one.pending})" for one in progress.standings if not one.ready]
        line = ", ".join(missing) or progress.mesh_pending
        if line and line != self._last:
            console.say(f"waiting for {line}")
        self._last = line


def _table(progress: Progress) -> Table:
    table = Table.grid(padding=(0, 2))
    for one in progress.standings:
        mark = Text("✔", "green") if one.ready else Text("…", "yellow")
        table.add_row(mark, one.name, Text("ready", "green") if one.ready else Text(one.pending, "yellow"))
    last = Text(progress.mesh_pending, "yellow") if progress.mesh_pending else Text("ready", "green")
    table.add_row(Text(f"{progress.seconds:.0f} s", "dim"), "mesh", last)
    return table


def _print_address(stack: Stack, state: StateDir, headline: str, typed: Callable[[str], str], as_json: bool) -> None:
    if stack.edge is None:
        console.say(typed(f"{headline}. It has no edge: call its services over gRPC, see headrace status."))
        return
    key = state.dev_key.read_text(encoding="utf-8").strip()
    url = f"http://{stack.edge.listen}"
    if as_json:
        console.print_json({"url": f"{url}/v1", "key": key, "stack": stack.name})
        return
    console.say(f"[bold green]{headline}.[/]")
    console.out.print(f"URL  {url}/v1\nkey  {key}   (development only; in {_short(state.dev_key)})\n\nTry it:\n")
    with connect(f"{url}/v1", key) as http:
        model = models(http)[0]
    console.out.print(_curl(url, key, model), markup=False)
    console.out.print()
    for what, command in (("or", "headrace chat"), ("see it", "headrace status"), ("stop it", "headrace down")):
        console.out.print(Text.assemble(f"{what + ':':<9}", (typed(command), "cyan")))


def _curl(url: str, key: str, model: str) -> str:
    question = '{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}'
    body = f'{{"model": "{model}", "stream": true, "temperature": 0, "messages": [{question}]}}'
    headers = f"-H 'authorization: Bearer {key}' -H 'content-type: application/json'"
    return f"curl -sN {url}/v1/chat/completions {headers} -d '{body}'"


def _short(path: Path) -> str:
    return str(path.relative_to(CHECKOUT)) if path.is_relative_to(CHECKOUT) else str(path)


def _clear_logs(state: StateDir) -> None:
    """Begin with empty logs, so that what is shown of them is of this start; the last ones are kept beside them."""
    for log in state.logs.glob("*.log"):
        log.replace(log.with_suffix(".log.last"))


def _stop_deadline(stack: Stack, state: StateDir) -> float:
    return max(spec.stop_wait_s for spec in processes(stack, state)) + _STOP_SLACK_S
