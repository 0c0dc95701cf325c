"""The static answer of a model: said, and disclosed, where nothing else is left and it is what was asked for."""

from __future__ import annotations

import msgspec

from headrace.common.v1 import generation_pb2
from headrace.router.v1 import router_pb2
from router.core.catalog import Model
from router.core.request_profile import AnswerForm, RequestProfile


def static_answer(model: Model, profile: RequestProfile) -> router_pb2.GenerateResponse | None:
    """The whole answer in one message; None where the model has none, or it has not the form that was asked for."""
    if model.fallback is None or not _fits(model.fallback, profile.form):
        return None
    message = router_pb2.GenerateResponse()
    for index in range(profile.choices):
        message.deltas.add(index=index, text=model.fallback, finish_reason=generation_pb2.FINISH_REASON_STOP)
    message.summary.SetInParent()
    message.summary.model = model.name
    return message


def _fits(text: str, form: AnswerForm) -> bool:
    """Whether a text is what a caller can read who asked for the form; only a grammar knows what is in it."""
    if form is AnswerForm.JSON_OBJECT:
        try:
            return isinstance(msgspec.json.decode(text), dict)
        except msgspec.DecodeError:
            return False
    return form is AnswerForm.TEXT
