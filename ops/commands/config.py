"""`headrace config`: what the control plane tells its clients."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from google.protobuf import json_format
from rich.table import Table
from rich.text import Text

from headrace.control.v1 import control_pb2
from ops import console
from ops.clients import snapshot, xds_clients
from ops.session import state_of, wait_for

config = typer.Typer(help="The configuration that the control plane publishes.", no_args_is_help=True)


@config.callback()
def group() -> None:
    """Keep `dump` a command of its own: typer would fold a single one into the group."""


@config.command()
def dump(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the whole snapshot.")] = False,
) -> None:
    """Show the snapshot in force, and what each xDS client was sent, acknowledged and refused."""
    stack = state_of(context).load_stack()

    async def ask() -> tuple[control_pb2.Snapshot, list[control_pb2.Client]]:
        return await snapshot(stack), await xds_clients(stack)

    current, clients = wait_for(ask())
    if as_json:
        console.print_json({"snapshot": _plain(current), "clients": [_plain(client) for client in clients]})
        return
    console.out.print(f"snapshot [bold]{current.version}[/]  of {current.published.ToJsonString()}")
    for source in current.sources:
        state = "[green]alive[/]" if source.alive else f"[red]gone[/] {source.error}"
        console.out.print(f"source   {source.name}: {state}")
    for fault in current.faults:
        console.out.print(f"[yellow]fault[/]    {fault.id} on {fault.service} {fault.replica}")
    console.out.print(_table(clients))


def _table(clients: list[control_pb2.Client]) -> Table:
    table = Table("client", "type", "resources", "sent", "acknowledged", "refused", box=None, header_style="bold")
    for client in sorted(clients, key=lambda client: client.node_id):
        for one in client.subscriptions:
            acked = Text(one.acked_version[:12], "green" if one.acked_version == one.sent_version else "yellow")
            refused = Text(f"{one.nacked_version[:12]} {one.nack_message}".strip(), "red")
            names = ", ".join(one.resource_names) or "*"
            kind = one.type_url.rpartition(".")[2]
            table.add_row(client.node_id, kind, names, one.sent_version[:12], acked, refused)
    return table


def _plain(message: Any) -> Any:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)
