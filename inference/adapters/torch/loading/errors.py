"""Why a model or an adapter cannot be loaded. Raised before anything is served."""

from __future__ import annotations


class ModelError(ValueError):
    """A model file that cannot be served; the message names the file and what is wrong with it."""


class TruncatedModel(ModelError):
    """The file ends before the data that its header promises."""


class UnknownArchitecture(ModelError):
    """The file holds a network that this engine does not know."""


class UnsupportedModel(ModelError):
    """A known architecture with a feature that this engine does not have; the message names it."""


class ChecksumMismatch(ModelError):
    """The files are not the ones that were asked for."""


class AdapterMismatch(ModelError):
    """A LoRA adapter that does not fit the model, or uses what this engine does not have."""
