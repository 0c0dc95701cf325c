"""What is given back."""

from collections.abc import Iterator
from dataclasses import dataclass

from mesh.errors import InvalidArgument


@dataclass(frozen=True)
class Echoing:
    """Answers texts of at most `max_chars` characters."""

    max_chars: int

    def say(self, text: str) -> str:
        """The text. Raises InvalidArgument, which names the field, where it is none or too long."""
        if not 0 < len(text) <= self.max_chars:
            raise InvalidArgument(f"1 to {self.max_chars} characters are needed", field="text")
        return text

    def words(self, text: str) -> Iterator[str]:
        """The text's words. Raises as `say`."""
        yield from self.say(text).split()
