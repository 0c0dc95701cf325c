"""`headrace keys`: who may call the mesh."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from ops import console
from ops.keystore import KeyStore
from ops.session import state_of

keys = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)


@keys.command()
def new(
    context: typer.Context,
    key_id: Annotated[str, typer.Option("--id", help="A name to speak of the key by.")],
    tenant: Annotated[str, typer.Option(help="Whose key it is; isolates limits and caches.")],
) -> None:
    """Make a key and print it. It is stored hashed and cannot be shown again."""
    state = state_of(context)
    state.create()
    plain = KeyStore(state.keys).new(key_id, tenant)
    console.out.print(plain, markup=False)
    console.say("This is the only time the key is shown. The gateway knows it within a second or two.")


@keys.command("list")
def show(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the keys by name; the keys themselves are stored nowhere."""
    stored = KeyStore(state_of(context).keys).list()
    if as_json:
        console.print_json([{"id": key.id, "tenant": key.tenant} for key in stored])
        return
    table = Table("id", "tenant", box=None, header_style="bold")
    for key in stored:
        table.add_row(key.id, key.tenant)
    console.out.print(table)


@keys.command()
def revoke(context: typer.Context, key_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Take a key away; calls with it are refused from then on."""
    KeyStore(state_of(context).keys).revoke(key_id)
    console.say(f"revoked {key_id}")
