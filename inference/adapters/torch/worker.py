"""The engine's thread: it loads the model, runs steps while there is work, and takes orders between them."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from inference.core.port import EngineError

from .event_queue import Delivery, deliver
from .generation import Generation
from .stepping import Stepper

T = TypeVar("T")

_log = structlog.get_logger("inference.engine")


class Worker:
    """Made on the event loop and used from it; what it delivers arrives there, once a step.

    `load` runs on the thread and gives the stepper and what frees the model.
    """

    def __init__(self, load: Callable[[], tuple[Stepper, Callable[[], None]]]) -> None:
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._orders: deque[Callable[[Stepper | None], list[Delivery]]] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._why = EngineError("the engine was closed")
        self._ready: asyncio.Future[Stepper] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    async def start(self) -> Stepper:
        """Load; the stepper's numbers may be read from then on. Raises what loading raised."""
        self._thread.start()
        return await self._ready

    async def close(self) -> None:
        """End what runs with EngineError, free the model, and wait for the thread. Callable twice."""
        self._closing = True
        self._wake.set()
        if self._thread.ident is not None:
            await self._ended.wait()

    def add(self, generation: Generation) -> None:
        """Let a generation run from the next step on."""

        def order(stepper: Stepper | None) -> list[Delivery]:
            if stepper is None:
                return [Delivery(generation.event_queue, end=self._why)]
            try:
                return stepper.add(generation)
            except EngineError as error:
                # That generation's alone: adding one touches no other.
                return [Delivery(generation.event_queue, end=error)]

        self._order(order)

    def cancel(self, generation: Generation) -> None:
        """Let a generation be gone before the next step. No-op once the thread has ended, and with it all of them."""

        def order(stepper: Stepper | None) -> list[Delivery]:
            if stepper is not None:
                stepper.cancel(generation)
            return []

        if not self._ended.is_set():
            self._order(order)

    def end_choice(self, generation: Generation, index: int) -> None:
        """Let one choice be gone before the next step. No-op once the thread has ended."""

        def order(stepper: Stepper | None) -> list[Delivery]:
            return [] if stepper is None else stepper.end_choice(generation, index)

        if not self._ended.is_set():
            self._order(order)

    def call(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Run `function` between two steps; what it gives or raises, EngineError if the thread ends before."""
        done: asyncio.Future[T] = self._loop.create_future()

        def order(stepper: Stepper | None) -> list[Delivery]:
            if stepper is None:
                _resolve(done, None, self._why)
                return []
            try:
                result = function()
            except Exception as error:
                self._post(_resolve, done, None, error)
            else:
                self._post(_resolve, done, result, None)
            return []

        self._order(order)
        return done

    def _order(self, order: Callable[[Stepper | None], list[Delivery]]) -> None:
        if self._ended.is_set():
            raise EngineError(f"the engine has stopped: {self._why}")
        self._orders.append(order)
        self._wake.set()

    def _run(self) -> None:
        try:
            stepper, free = self._load()
        except Exception as error:
            self._post(_resolve, self._ready, None, error)
            self._post(self._ended.set)
            return
        self._post(_resolve, self._ready, stepper, None)
        try:
            self._serve(stepper)
        except Exception as error:
            # A step that fails leaves device and memory in doubt: everyone is told, and the node decides what to do.
            # The traceback goes without local variables: they hold prompts.
            _log.error("engine.step_failed", traceback=traceback.format_exc())
            self._why = EngineError(f"the engine failed: {type(error).__name__}: {error}")
        free()
        self._post(self._wind_up, stepper)

    def _wind_up(self, stepper: Stepper) -> None:
        """On the loop, the thread being done: no order can come in between."""
        self._ended.set()
        for order in self._orders:
            deliver(order(None))
        self._orders.clear()
        deliver(stepper.fail(self._why))

    def _serve(self, stepper: Stepper) -> None:
        while not self._closing:
            self._wake.clear()
            out: list[Delivery] = []
            while self._orders:
                out += self._orders.popleft()(stepper)
            out += stepper.step()
            if out:
                self._post(deliver, out)
            if not stepper.busy:
                self._wake.wait()

    def _post(self, callback: Callable[..., Any], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            # The loop is closed: nobody is left to hear.
            self._closing = True


def _resolve(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
