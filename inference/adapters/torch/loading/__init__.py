"""Reading model files: what a model is (ModelConfig) and its weights, from a Hugging Face folder or a GGUF file."""

from .checkpoint import Checkpoint, load_checkpoint, read_config
from .config import Experts, ModelConfig
from .errors import AdapterMismatch, ChecksumMismatch, ModelError, TruncatedModel, UnknownArchitecture, UnsupportedModel
from .rope import RopeScaling

__all__ = [
    "AdapterMismatch",
    "Checkpoint",
    "ChecksumMismatch",
    "Experts",
    "ModelConfig",
    "ModelError",
    "RopeScaling",
    "TruncatedModel",
    "UnknownArchitecture",
    "UnsupportedModel",
    "load_checkpoint",
    "read_config",
]
