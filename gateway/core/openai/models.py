"""The list of models, as OpenAI writes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from headrace.router.v1 import router_pb2


class Model(Struct):
    """A model that can be asked for by name; `context_length` is in tokens, null while it is not known."""

    id: str
    created: int
    owned_by: str
    context_length: int | None
    object: Literal["model"] = "model"


class ModelList(Struct):
    """All models."""

    data: list[Model]
    object: Literal["list"] = "list"


def to_model(model: router_pb2.Model) -> Model:
    """A model as the router lists it, in OpenAI's terms."""
    return Model(model.name, model.created.seconds, model.owned_by or "headrace", model.context_length or None)


def to_model_list(models: Iterable[router_pb2.Model]) -> ModelList:
    """All of them."""
    return ModelList([to_model(model) for model in models])
