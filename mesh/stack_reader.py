"""Taking values out of a stack file as they are written: `yes` and `010` are texts."""

from __future__ import annotations

import re

import yaml

from mesh.address import check_peer
from mesh.yaml_source import YamlSource


class StackReader:
    """Takes values out of YAML nodes. A value that is wrong is noted as a problem and read as an empty one.

    A missing node (None) has been reported by the mapping that misses it.
    """

    def __init__(self, text: str, file: str) -> None:
        """Raises FileErrors where the text is no YAML."""
        self._source = YamlSource(text, file)
        self.root = self._source.root

    @property
    def is_good(self) -> bool:
        """Whether nothing was noted."""
        return not self._source.found

    def problem(self, node: yaml.Node | None, reason: str) -> None:
        """Note a mistake at a node; None is the file as a whole."""
        self._source.note_at(node, reason)

    def finish(self) -> None:
        """Raise FileErrors if anything was noted."""
        self._source.finish()

    def entries(self, node: yaml.Node | None, at: str) -> dict[str, yaml.Node]:
        """A mapping's values by key, in order."""
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, f"{at}: must be a mapping")
            return {}
        entries: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.problem(key, f"{at}: keys are plain words")
            elif key.value in entries:
                self.problem(key, f"{at}: {key.value!r} is there twice")
            else:
                entries[key.value] = value
        return entries

    def mapping(
        self, node: yaml.Node | None, at: str, required: tuple[str, ...], optional: tuple[str, ...]
    ) -> dict[str, yaml.Node]:
        """A mapping with known keys."""
        entries = self.entries(node, at)
        for key, value in entries.items():
            if key not in required and key not in optional:
                self.problem(value, f"{at}: unknown key {key!r}; there are: {', '.join((*required, *optional))}")
        for key in required:
            if key not in entries:
                self.problem(node, f"{at}: {key!r} is missing")
        return entries

    def text(self, node: yaml.Node | None, at: str) -> str:
        """A scalar as it is written."""
        return self._scalar(node, at) or ""

    def texts(self, node: yaml.Node | None, at: str) -> dict[str, str]:
        """A mapping from words to scalars."""
        return {key: self.text(value, f"{at}.{key}") for key, value in self.entries(node, at).items()}

    def matching(self, node: yaml.Node | None, at: str, pattern: re.Pattern[str]) -> str:
        """A scalar of a given form."""
        text = self._scalar(node, at)
        if text is not None and not pattern.fullmatch(text):
            self.problem(node, f"{at}: {text!r} does not match {pattern.pattern}")
        return text or ""

    def integer(self, node: yaml.Node, at: str, minimum: int, maximum: int) -> int:
        """A whole number within bounds; `minimum` where it is wrong."""
        text = self._scalar(node, at)
        if text is None:
            return minimum
        if re.fullmatch(r"-?[0-9]{1,10}", text) and minimum <= int(text) <= maximum:
            return int(text)
        self.problem(node, f"{at}: must be a whole number from {minimum} to {maximum}")
        return minimum

    def address(self, node: yaml.Node | None, at: str) -> str:
        """A host:port."""
        text = self._scalar(node, at)
        if text is None:
            return ""
        try:
            check_peer(text)
        except ValueError:
            self.problem(node, f"{at}: {text!r} is not host:port")
        return text

    def _scalar(self, node: yaml.Node | None, at: str) -> str | None:
        """A single value's text; None where there is none, which has been reported by then."""
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode) or node.tag == "tag:yaml.org,2002:null":
            self.problem(node, f"{at}: must be a single value")
            return None
        return str(node.value)
