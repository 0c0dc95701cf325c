"""A fresh gateway for each test; started in a few milliseconds."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.gateway.harness import Running, gateway


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with gateway(tmp_path) as it:
        yield it
