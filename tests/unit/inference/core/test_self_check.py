"""A node stops being ready when its engine answers nobody, and only then."""

from __future__ import annotations

import asyncio

import pytest

from inference.core.self_check import AGAIN_AFTER_S, SUSPICIOUS, SelfCheck


class Node:
    """What the check is given: an engine that fails so many questions, and a readiness."""

    def __init__(self, failing_for: int = 0) -> None:
        self.failing_for = failing_for
        self.asked = 0
        self.heard: list[str] = []
        self.check = SelfCheck(self.probe, self.failing, self.well, self.sleep)

    async def probe(self) -> None:
        self.asked += 1
        if self.asked <= self.failing_for:
            raise ValueError("logits")

    async def failing(self, error: Exception) -> None:
        self.heard.append(f"failing: {error}")

    async def well(self) -> None:
        self.heard.append("well")

    async def sleep(self, seconds: float) -> None:
        assert seconds == AGAIN_AFTER_S
        await asyncio.sleep(0)

    async def settled(self) -> None:
        task = asyncio.create_task(self.check.run())
        for _ in range(50):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_answers_that_fail_now_and_then_ask_nothing():
    node = Node(failing_for=9)
    for _ in range(10):
        for _ in range(SUSPICIOUS - 1):
            node.check.failed()
        node.check.answered()
    await node.settled()
    assert (node.asked, node.heard) == (0, [])


async def test_requests_that_fail_by_their_own_doing_leave_the_node_ready():
    node = Node()
    for _ in range(3 * SUSPICIOUS):
        node.check.failed()
    await node.settled()
    assert (node.asked, node.heard) == (1, [])


async def test_an_engine_that_answers_nobody_is_asked_until_it_does():
    node = Node(failing_for=4)
    for _ in range(SUSPICIOUS):
        node.check.failed()
    await node.settled()
    assert (node.asked, node.heard) == (5, ["failing: logits", "well"])
