"""The settings, from HEADRACE_ECHO_*, beside those of every process."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from mesh.lifecycle import ProcessConfig


@dataclass(frozen=True)
class EchoConfig(ProcessConfig):
    """One echo process."""

    # The longest text that is taken, in characters.
    max_chars: Annotated[int, Meta(ge=1)] = 1000
