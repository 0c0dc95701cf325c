"""Puts a provider's engine together from its settings and its dialect."""

from __future__ import annotations

from collections.abc import Iterable

from inference.adapters.providers.credentials import Credentials
from inference.adapters.providers.engine import ProviderEngine
from inference.adapters.providers.settings import Capability, ProviderSettings, card
from inference.adapters.providers.transport import Authorize, Transport
from inference.core.backend import ChatBackend
from inference.core.providers.dialect import Dialect


def assemble(
    settings: ProviderSettings,
    dialect: Dialect,
    authorize: Authorize,
    usual: Iterable[Capability],
    *,
    continues: bool = False,
) -> ChatBackend:
    """The engine; no connection is opened. `continues`: it is asked to go on from the text of an answer."""
    transport = Transport(
        settings.base_url,
        connect_s=settings.connect_s,
        limit=settings.max_running,
        authorize=authorize,
    )
    engine = ProviderEngine(
        dialect=dialect,
        transport=transport,
        credentials=Credentials(settings.api_key, settings.api_key_file),
        card=card(settings, usual, continues=continues),
        base_url=settings.base_url,
        max_answer_bytes=settings.max_answer_bytes,
        max_running=settings.max_running,
    )
    return ChatBackend(engine, default_model=settings.upstream_model)
