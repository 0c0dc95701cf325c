"""The routing file: read whole, every mistake reported with its file and line."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from router.core.calibration import Calibration
from router.core.catalog import Catalog, Deployment, Model, fields_of
from router.core.router import Routing
from router.core.validation import Problem, problems_of

Path_ = tuple[str | int, ...]
_LISTS: Final[dict[str, type[msgspec.Struct]]] = {"deployments": Deployment, "models": Model}
# Where msgspec says a value is: "... - at `$.price.input`", "`$[0]`" for a list's item.
_AT = re.compile(r"^(?P<reason>.*?)(?: - at `(?:key in )?\$(?P<path>[^`]*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.(?P<key>[^.\[\]]+)|\[(?P<index>\d+)\]")


class RoutingFileError(Exception):
    """Everything that is wrong with a routing file, one line each: file, line, reason."""


def read(path: Path) -> Routing:
    """Read and check the file. Raises RoutingFileError with every mistake that could be found."""
    try:
        raw = path.read_bytes()
        node = yaml.compose(raw, Loader=yaml.CSafeLoader)
    except OSError as error:
        raise RoutingFileError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RoutingFileError(f"{path}:{line}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RoutingFileError(f"{path}:1: not YAML: {' '.join(str(error).split())}") from error
    lines: dict[Path_, int] = {(): 1}
    problems: list[Problem] = []
    data = _plain(node, (), lines, problems)
    catalog = _catalog(data, problems)
    calibrations: dict[str, Calibration] = {}
    digest = hashlib.sha256(raw)
    if catalog is not None and not problems:
        problems += problems_of(catalog)
        calibrations = _calibrations(path, catalog, problems, digest)
    if catalog is None or problems:
        raise RoutingFileError("\n".join(f"{path}:{_line(lines, p.path)}: {_said(p)}" for p in problems))
    return Routing(catalog, digest.hexdigest()[:16], calibrations)


def _plain(node: Any, at: Path_, lines: dict[Path_, int], problems: list[Problem]) -> Any:
    """The node as plain values; remembers every value's line, and finds keys that come twice."""
    if node is None:
        return None
    lines[at] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*at, i), lines, problems) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            if name in values:
                lines[(*at, name)] = key.start_mark.line + 1
                problems.append(Problem((*at, name), "given twice"))
                continue
            values[name] = _plain(value, (*at, name), lines, problems)
            lines[(*at, name)] = key.start_mark.line + 1
        return values
    return yaml.CSafeLoader("").construct_object(node)


def _catalog(data: Any, problems: list[Problem]) -> Catalog | None:
    """The typed catalog; each deployment, model and setting is read by itself, so that all mistakes show at once."""
    if not isinstance(data, dict):
        problems.append(Problem((), "the file must hold `deployments` and `models`"))
        return None
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Catalog):
        if field.name in _LISTS:
            values[field.name] = _list(data.get(field.name), field.name, problems)
        elif field.name in data:
            values[field.name] = _typed(data[field.name], field.type, (field.name,), problems)
    problems += [Problem((name,), "no such setting") for name in data if name not in fields_of(Catalog)]
    return None if problems else Catalog(**values)


def _list(data: Any, name: str, problems: list[Problem]) -> tuple[Any, ...]:
    if not isinstance(data, list):
        problems.append(Problem((name,), "a list is needed"))
        return ()
    return tuple(_typed(item, _LISTS[name], (name, i), problems) for i, item in enumerate(data))


def _typed(data: Any, kind: Any, at: Path_, problems: list[Problem]) -> Any:
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        match = _AT.match(str(error))
        assert match is not None  # the pattern matches any text
        steps = [m["key"] or int(m["index"]) for m in _STEP.finditer(match["path"] or "")]
        reason = match["reason"]
        unknown = re.search(r"unknown field `(?P<name>[^`]*)`", reason)
        problems.append(Problem((*at, *steps, *([unknown["name"]] if unknown else [])), reason))
        return None


def _calibrations(
    path: Path, catalog: Catalog, problems: list[Problem], digest: hashlib._Hash
) -> dict[str, Calibration]:
    found: dict[str, Calibration] = {}
    for i, model in enumerate(catalog.models):
        if model.cascade is None:
            continue
        try:
            raw = (path.parent / model.cascade.calibration).read_bytes()
            found[model.name] = msgspec.json.decode(raw, type=Calibration)
            digest.update(raw)
        except (OSError, msgspec.DecodeError, ValueError) as error:
            at = ("models", i, "cascade", "calibration")
            problems.append(Problem(at, f"{model.cascade.calibration}: {error}"))
    return found


def _line(lines: dict[Path_, int], at: Path_) -> int:
    """The line of the value, or of the nearest thing that holds it."""
    while at not in lines:
        at = at[:-1]
    return lines[at]


def _said(problem: Problem) -> str:
    words = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in problem.path).lstrip(".")
    return f"{words}: {problem.reason}" if words else problem.reason
