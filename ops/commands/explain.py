"""`headrace explain`: why a request was answered as it was."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf import json_format
from rich.table import Table

from headrace.common.v1 import generation_pb2
from ops import console
from ops.clients import explanation
from ops.session import state_of, wait_for


def explain(
    context: typer.Context,
    request_id: Annotated[str, typer.Argument(help="From the answer's x-request-id header.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which decisions the router took for a request, and the attempts it made."""
    answer = wait_for(explanation(state_of(context).load_stack(), request_id))
    if as_json:
        console.print_json(json_format.MessageToDict(answer, preserving_proto_field_name=True))
        return
    steps = Table("at", "what", "detail", box=None, header_style="bold")
    for step in answer.steps:
        steps.add_row(f"{step.at.ToNanoseconds() / 1e6:.1f} ms", step.what, step.detail)
    console.out.print(steps)
    attempts = Table("attempt", "deployment", "replica", "outcome", "reason", "took", box=None, header_style="bold")
    for attempt in answer.disclosure.attempts:
        outcome = generation_pb2.Outcome.Name(attempt.outcome).removeprefix("OUTCOME_")
        took = f"{attempt.duration.ToNanoseconds() / 1e6:.1f} ms"
        attempts.add_row(attempt.cause, attempt.deployment, attempt.replica, outcome, attempt.reason, took)
    console.out.print(attempts)
