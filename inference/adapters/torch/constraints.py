"""Compiled grammars, made off the event loop, kept while they are in use by anyone lately."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from inference.core.port import Constraint, ConstraintKind

if TYPE_CHECKING:
    from .grammar import Compiler

KEPT_GRAMMARS = 64
SUPPORTED = frozenset(ConstraintKind)


class Grammars:
    """A cache of compiled grammars with one compilation at a time. Used on the event loop."""

    def __init__(
        self, vocabulary: Callable[[], Sequence[bytes]], vocab_size: int, eos_ids: Sequence[int], threads: int
    ) -> None:
        self._vocabulary = vocabulary
        self._vocab_size = vocab_size
        self._eos_ids = eos_ids
        self._threads = threads
        # One thread: a costly grammar delays other new grammars, and nothing else.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        self._compiler: Compiler | None = None
        self._known: OrderedDict[Constraint, asyncio.Future[Any]] = OrderedDict()

    def warm(self) -> None:
        """Import and prepare the compiler in the background; a first constraint would wait for it."""
        self._executor.submit(self._prepared)

    async def compile(self, constraint: Constraint) -> Any:
        """The compiled grammar. Raises UnsupportedConstraint. Concurrent calls for the same one compile it once."""
        future = self._known.get(constraint)
        if future is None:
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._executor, self._compile, constraint)
            # A refusal that nobody waits for any more is no mistake.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._known[constraint] = future
            if len(self._known) > KEPT_GRAMMARS:
                self._known.popitem(last=False)
        self._known.move_to_end(constraint)
        return await asyncio.shield(future)

    def close(self) -> None:
        """Let no more compile. Callable twice."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _compile(self, constraint: Constraint) -> Any:
        return self._prepared().compile(constraint)

    def _prepared(self) -> Compiler:
        if self._compiler is None:
            from .grammar import Compiler  # noqa: PLC0415 -- importing it takes a second that start need not wait for

            self._compiler = Compiler(self._vocabulary(), self._vocab_size, self._eos_ids, self._threads)
        return self._compiler
