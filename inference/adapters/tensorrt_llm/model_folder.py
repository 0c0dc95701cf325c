"""What the engine must know of a Hugging Face folder before TensorRT-LLM reads it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.adapters.model_files import missing_model

# Other weights or another tokenizer make another revision.
_HASHED = ("*.safetensors", "config.json", "generation_config.json", "hf_quant_config.json", "tokenizer*.json")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model's end-of-text tokens, and how many tokens and positions it has."""

    path: Path
    eos_ids: tuple[int, ...]
    vocab_size: int
    positions: int


def read_folder(path: Path) -> ModelFolder:
    """Raises ValueError, naming the file, for what is missing or not as expected."""
    if not path.exists():
        raise ValueError(f"model_path: {missing_model(path)}")
    config = _json(path / "config.json")
    generation = _json(path / "generation_config.json") if (path / "generation_config.json").exists() else {}
    text = config.get("text_config", config)
    eos = generation.get("eos_token_id", text.get("eos_token_id"))
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    try:
        return ModelFolder(path, tuple(map(int, ids)), int(text["vocab_size"]), int(text["max_position_embeddings"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name}/config.json: {error!r}") from error


def folder_revision(path: Path) -> str:
    """SHA-256 over the names and contents of what makes the model. Reads every weight: takes seconds."""
    digest = hashlib.sha256()
    for file in sorted({found for pattern in _HASHED for found in path.glob(pattern)}):
        with file.open("rb") as opened:
            digest.update(f"{hashlib.file_digest(opened, 'sha256').hexdigest()}  {file.name}\n".encode())
    return digest.hexdigest()


def _json(path: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{path.parent.name}: {path.name} cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.parent.name}: {path.name} is not JSON: {error}") from error
    return loaded
