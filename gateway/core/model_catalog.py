"""The public models as a router listed them last."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from gateway.core.context_check import check_context
from gateway.core.ports import Router
from headrace.common.v1.generation_pb2 import Generation
from headrace.router.v1 import router_pb2
from mesh.clock import Clock
from mesh.errors import MeshError

# What an answer calls its model: the name asked for, what the node that answers calls it, or that only where the
# answer is not of the chain's first member's model.
Naming: TypeAlias = Literal["asked", "answered", "changed"]
_TIMEOUT_S: Final = 5.0


class ModelCatalog:
    """What is known of the models without asking. Empty until a router has answered once; what it said last stays."""

    def __init__(self, router: Router, clock: Clock, interval_s: float, naming: Naming) -> None:
        self._router = router
        self._clock = clock
        self._interval_s = interval_s
        self._naming = naming
        self._models: dict[str, router_pb2.Model] = {}

    async def run(self) -> None:
        """Look again every so often, until cancelled."""
        while True:
            # Nothing that a request is refused for: what is known stays.
            with contextlib.suppress(MeshError):
                self.use(await self._router.list_models(_TIMEOUT_S))
            await self._clock.sleep(self._interval_s)

    def use(self, models: Sequence[router_pb2.Model]) -> None:
        """Take these in the place of what was known."""
        self._models = {model.name: model for model in models}

    def check(self, name: str, generations: Sequence[Generation]) -> None:
        """Raises InvalidArgument where no deployment of the model could hold the prompts."""
        model = self._models.get(name)
        if model is not None:
            check_context(generations, model.max_context_length)

    def name_in_answer(self, asked: str, answered: str) -> str:
        """What the answer calls its model."""
        if self._naming == "asked":
            return asked
        if self._naming == "answered":
            return answered
        model = self._models.get(asked)
        first = model.first_models if model is not None else ()
        return answered if first and answered not in first else asked
