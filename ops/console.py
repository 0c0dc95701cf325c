"""What the operator sees: results on stdout, everything else on stderr, colours where a person reads."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from ops.failure import Failure

# Where no terminal sets the width, lines are as long as what is in them.
_FILE_WIDTH = 200

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _FILE_WIDTH)
err = Console(stderr=True, highlight=False, soft_wrap=True, width=None if sys.stderr.isatty() else _FILE_WIDTH)


def print_json(value: Any) -> None:
    """One JSON document on stdout, for programs."""
    out.file.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_failure(failure: Failure, typed: Callable[[str], str] = str) -> None:
    """What went wrong and what to do next, on stderr; `typed` makes the commands in it those of this mesh."""
    err.print(Text.assemble(("error: ", "bold red"), typed(failure.what)))
    err.print(Text.assemble(("  next: ", "bold"), typed(failure.next_step)))


def say(text: str) -> None:
    """A line for people, on stderr. May hold rich's markup."""
    err.print(text)
