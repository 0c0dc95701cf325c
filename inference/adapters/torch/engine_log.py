"""The engine's log.

The CUDA benchmark runs these modules on machines that have torch and little else; there the standard library logs.
"""

from __future__ import annotations

import logging
from typing import Any

try:
    import structlog
except ImportError:
    structlog = None  # type: ignore[assignment]  # see above


class _Plain:
    """What the modules use of structlog's logger."""

    def error(self, event: str, **fields: object) -> None:
        """Log an event with its fields."""
        logging.getLogger("inference.engine").error("%s %s", event, fields)


def engine_log() -> Any:
    """The logger that all of the engine writes to."""
    return structlog.get_logger("inference.engine") if structlog is not None else _Plain()
