"""Relative paths in a stack file: they start at the file's own folder, wherever the copy that runs is kept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import yaml

from mesh.stack_reader import StackReader

# The settings of the services that name files and folders.
_NAMES_A_PATH: Final = re.compile(r"HEADRACE_\w+_(PATH|FOLDER|FILE|CONFIG|KEYS)")


def with_whole_paths(text: str, file: Path) -> str:
    """The stack's text with whole paths in its services' `env` wherever something lies there; the rest is as it was.

    What does not lie beside the file starts at the checkout, as the paths of the stack files that come with it do.
    Raises FileErrors where the text is no stack.
    """
    reader = StackReader(text, str(file))
    services = reader.entries(reader.entries(reader.root, "the stack").get("services"), "services")
    edits = [edit for name, node in services.items() for edit in _edits(reader, node, name, file.resolve().parent)]
    reader.finish()
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _edits(reader: StackReader, service: yaml.Node, name: str, folder: Path) -> list[tuple[int, int, str]]:
    """The spans of the text that hold relative paths, and what goes there."""
    env = reader.entries(service, name).get("env")
    edits = []
    for variable, node in reader.entries(env, f"{name}.env").items():
        if _NAMES_A_PATH.fullmatch(variable) and isinstance(node, yaml.ScalarNode) and node.value:
            whole = folder / node.value
            if not Path(node.value).is_absolute() and whole.exists():
                edits.append((node.start_mark.index, node.end_mark.index, json.dumps(str(whole))))
    return edits
