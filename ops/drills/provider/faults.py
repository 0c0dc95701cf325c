"""The ways in which the provider can go wrong, and how they are written."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

_TEXT: Final = re.compile(r"([a-z_]+)((?:,[a-z_]+=[^,]+)*)")


class Kind(enum.Enum):
    """What happens instead of an answer."""

    # The connection breaks after `after` chunks.
    CUT = "cut"
    # Silence after `after` chunks; the connection stays.
    STALL = "stall"
    # A chunk that is no JSON, after `after` chunks.
    MALFORMED = "malformed"
    # Silence after the headers.
    SILENT = "silent"
    # Silence instead of headers.
    NO_HEADERS = "no_headers"
    # From chunk `after` on, `interval_s` before each one.
    DRIP = "drip"
    # 200, and an error as the body.
    ERROR_BODY = "error_body"
    # An error event after `after` chunks.
    ERROR_EVENT = "error_event"
    # Everything but usage and the last line: whether something is missing cannot be told.
    NO_DONE = "no_done"
    # Everything but the last line: nothing of the answer is missing.
    UNTERMINATED = "unterminated"
    # 429 with Retry-After: `retry_after`.
    RATE_LIMIT = "rate_limit"
    # `status` as HTTP status.
    STATUS = "status"
    # A response of `status` and `content_type` with `body`, whatever that is.
    REPLY = "reply"
    # Nobody listens for `lasts_s`.
    REFUSE = "refuse"


class FaultError(ValueError):
    """A fault that cannot be understood; the message says which part."""


@dataclass(frozen=True)
class Fault:
    """One way to go wrong. Times are seconds."""

    kind: Kind
    after: int = 3
    interval_s: float = 1.0
    status: int = 500
    retry_after: str = "1"
    content_type: str = "application/json"
    body: str = ""
    lasts_s: float = 5.0
    # Share of calls that it hits, 0 to 100, spread evenly.
    percent: float = 100.0
    # How many calls it hits at most; 0 means all.
    calls: int = 0
    # Only calls for this model; empty means all.
    model: str = ""

    def __post_init__(self) -> None:
        if self.after < 0 or self.calls < 0 or self.interval_s < 0 or self.lasts_s < 0:
            raise FaultError("after, calls, interval_s and lasts_s: must not be negative")
        if not 0 <= self.percent <= 100:
            raise FaultError("percent: must be from 0 to 100")
        least = 200 if self.kind is Kind.REPLY else 400
        if not least <= self.status <= 599:
            raise FaultError(f"status: must be from {least} to 599")


def from_fields(fields: Any) -> Fault:
    """A fault from decoded JSON or YAML. Raises FaultError."""
    if isinstance(fields, dict) and (unknown := set(fields) - set(Fault.__dataclass_fields__)):
        raise FaultError(f"unknown field {sorted(unknown)[0]!r}; there are: {', '.join(Fault.__dataclass_fields__)}")
    try:
        return msgspec.convert(fields, Fault, strict=False)
    except msgspec.ValidationError as error:
        raise FaultError(str(error)) from error


def from_text(text: str) -> Fault:
    """A fault as a header or a model's name carries it: `kind,field=value,...`. Raises FaultError."""
    parts = _TEXT.fullmatch(text.strip())
    if parts is None:
        raise FaultError(f"{text!r} is not kind,field=value,...")
    pairs = (pair.partition("=") for pair in parts[2].split(",") if pair)
    return from_fields({"kind": parts[1]} | {name: value for name, _, value in pairs})


class Switchboard:
    """The faults in force, in the order in which they were set; the first that hits a call is the one."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._seen: dict[int, int] = {}
        self._hit: dict[int, int] = {}

    def set(self, faults: list[Fault]) -> None:
        """Replace all faults; their counts begin anew."""
        self._faults = list(faults)
        self._seen, self._hit = {}, {}

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults in force."""
        return tuple(self._faults)

    def choose(self, model: str) -> Fault | None:
        """The fault that hits a call for `model`; counts the call."""
        for place, fault in enumerate(self._faults):
            if fault.kind is Kind.REFUSE or (fault.model and fault.model != model):
                continue
            seen = self._seen[place] = self._seen.get(place, 0) + 1
            spent = fault.calls and self._hit.get(place, 0) >= fault.calls
            # Every call moves the count on by `percent`; it is hit where a whole hundred is passed.
            if not spent and int(seen * fault.percent / 100) > int((seen - 1) * fault.percent / 100):
                self._hit[place] = self._hit.get(place, 0) + 1
                return fault
        return None
