"""When a provider says that it can be asked again."""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

# Longer waits are not back-pressure any more, whatever the provider means by them.
MAX_S: Final = 3600.0
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RETRY_INFO: Final = "type.googleapis.com/google.rpc.RetryInfo"


def from_headers(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait, from a response's headers (names in lower case); None where they say nothing.

    `now` is the wall clock in seconds. In this order: `retry-after-ms`, `retry-after` as seconds or as an HTTP date,
    and the reset time of whichever of the provider's rate limits has nothing left.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return _bounded(milliseconds / 1000)
    plain = headers.get("retry-after", "").strip()
    if plain:
        seconds = _number(plain)
        return _bounded(seconds) if seconds is not None else _until(_http_date(plain), now)
    waits = [wait for wait in (_reset(headers, name, now) for name in headers if "-remaining" in name) if wait]
    return max(waits, default=None)


def from_details(details: Any) -> float | None:
    """Seconds to wait, from the RetryInfo in the details of a Google API error; None where there is none."""
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and detail.get("@type") == _RETRY_INFO:
            return duration(str(detail.get("retryDelay", "")))
    return None


def duration(text: str) -> float | None:
    """The seconds in a duration such as `6m0s`, `20ms` or `34.07s`; None where it is none."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return _bounded(sum(float(number) * _UNIT_S[unit] for number, unit in parts))


def _reset(headers: Mapping[str, str], remaining: str, now: float) -> float | None:
    """The wait for one limit where it is used up: `x-ratelimit-...`, or Anthropic's `anthropic-ratelimit-...`."""
    if _number(headers[remaining]) != 0:
        return None
    # x-ratelimit-remaining-tokens and anthropic-ratelimit-tokens-remaining.
    text = headers.get(remaining.replace("-remaining", "-reset"), "").strip()
    if (seconds := _number(text)) is not None:
        # Some servers give the moment instead of the wait.
        return _bounded(seconds - now if seconds > now / 2 else seconds)
    return duration(text) or _until(_iso_date(text), now)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _http_date(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _iso_date(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _until(moment: float | None, now: float) -> float | None:
    return None if moment is None else _bounded(moment - now)


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), MAX_S)
