"""Reading model files: what a model is (ModelConfig) and its weights, from a Hugging Face folder or a GGUF file."""

from .checkpoint import Checkpoint, load_checkpoint
from .config import ModelConfig, RopeScaling
from .errors import AdapterMismatch, ChecksumMismatch, ModelError, TruncatedModel, UnknownArchitecture, UnsupportedModel

__all__ = [
    "AdapterMismatch",
    "Checkpoint",
    "ChecksumMismatch",
    "ModelConfig",
    "ModelError",
    "RopeScaling",
    "TruncatedModel",
    "UnknownArchitecture",
    "UnsupportedModel",
    "load_checkpoint",
]
