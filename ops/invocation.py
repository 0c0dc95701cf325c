"""How the command was called, and how commands that it tells the reader to type find the same mesh."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.state import CHECKOUT

DEFAULT_STATE: Final = CHECKOUT / ".headrace"
# Those that speak of one state folder's mesh. `drill list` and the planner take any.
_COMMAND: Final = re.compile(r"\bheadrace (?=(?:up|down|status|scale|logs|chat|keys|config|explain|drill)\b)")


@dataclass(slots=True)
class Invocation:
    """What was chosen before the command."""

    state_dir: Path = DEFAULT_STATE

    def typed(self, text: str) -> str:
        """The text with every `headrace COMMAND` in it as it has to be typed to mean this state folder."""
        if self.state_dir == DEFAULT_STATE:
            return text
        whole = f"headrace --state-dir {shlex.quote(str(self.state_dir))} "
        return _COMMAND.sub(lambda _: whole, text)
