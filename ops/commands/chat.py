"""`headrace chat`: talk to a model in the terminal."""

from __future__ import annotations

import os
import readline  # noqa: F401 - importing it gives input() its line editing and history
import sys
from collections.abc import Callable
from typing import Annotated, Final

import typer

from ops import console
from ops.conversation import Conversation, connect, models
from ops.failure import ExitCode, Failure
from ops.session import invocation_of, state_of
from ops.state import StateDir

_HELP: Final = """\
  /reset  forget the conversation so far
  /exit   leave (so does ctrl-D)
  /help   this list
  ctrl-C cancels the answer, not the program."""


def chat(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option(help="The model's public name; without it the first one offered.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest word.", min=0, max=2)] = 0.2,
    url: Annotated[str | None, typer.Option(help="Where the mesh is, ending in /v1; without it the local one.")] = None,
    key: Annotated[
        str | None, typer.Option(envvar="HEADRACE_API_KEY", help="The API key; without it the development key.")
    ] = None,
) -> None:
    """Talk to a model. With a pipe, each line is one turn and only the answers are printed."""
    state = state_of(context)
    with connect(url or _local_url(state), key or _local_key(state)) as http:
        offered = models(http)
        chosen = model or next(iter(offered), None)
        if chosen is None or chosen not in offered:
            known = ", ".join(offered) or "none"
            raise Failure(f"no model {chosen or ''!r}; there are: {known}", "choose with --model", ExitCode.USAGE)
        conversation = Conversation(http, chosen, temperature)
        if sys.stdin.isatty():
            console.say(f"[dim]{chosen}; /help lists what else there is[/]")
            _talk(conversation, invocation_of(context).typed)
        else:
            for line in filter(None, map(str.strip, sys.stdin)):
                _answer(conversation, line)


def _talk(conversation: Conversation, typed: Callable[[str], str]) -> None:
    def forget() -> bool:
        conversation.reset()
        console.say("[dim]forgotten[/]")
        return True

    def explain() -> bool:
        console.say(_HELP)
        return True

    commands: dict[str, Callable[[], bool]] = {
        "/reset": forget, "/help": explain, "/exit": lambda: False, "/quit": lambda: False,
    }  # fmt: skip
    going = True
    while going:
        try:
            line = input("\x01\x1b[1;36m\x02> \x01\x1b[0m\x02").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            console.say("\n[dim]/exit or ctrl-D leaves[/]")
            continue
        if line in commands:
            going = commands[line]()
        elif line.startswith("/"):
            console.say(f"[yellow]no command {line.split()[0]}[/]; /help lists them")
        elif line:
            _turn(conversation, line, typed)


def _turn(conversation: Conversation, line: str, typed: Callable[[str], str]) -> None:
    """One turn in a terminal: ctrl-C and errors end the answer only."""
    try:
        _answer(conversation, line)
    except KeyboardInterrupt:
        console.say("\n[yellow]cancelled[/]")
    except Failure as failure:
        console.print_failure(failure, typed)


def _answer(conversation: Conversation, line: str) -> None:
    pieces = conversation.ask(line)
    try:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
    finally:
        # Closes the connection, which frees the model's slot at once.
        pieces.close()


def _local_url(state: StateDir) -> str:
    edge = state.load_stack().edge
    if edge is None:
        raise Failure("the local stack has no edge", "say where the mesh is with --url", ExitCode.USAGE)
    return f"http://{edge.listen}/v1"


def _local_key(state: StateDir) -> str:
    if not os.access(state.dev_key, os.R_OK):
        raise Failure("no development key here", "give one with --key or HEADRACE_API_KEY", ExitCode.USAGE)
    return state.dev_key.read_text(encoding="utf-8").strip()
