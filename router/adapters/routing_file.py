"""The routing file: read whole, every mistake reported with its file and line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from mesh.yaml_source import FileErrors, YamlSource, decode, read_bytes
from router.core.calibration import Calibration
from router.core.catalog import Catalog, Deployment, Model, fields_of
from router.core.router import Routing
from router.core.validation import problems_of

_LISTS: Final[dict[str, type[msgspec.Struct]]] = {"deployments": Deployment, "models": Model}


def read(path: Path) -> Routing:
    """Read and check the file and the calibrations it names. Raises FileErrors with every mistake it could find."""
    raw = read_bytes(path)
    source = YamlSource(decode(raw, str(path)), str(path))
    catalog = _catalog(source)
    source.finish()
    for problem in problems_of(catalog):
        source.note(problem.path, problem.reason)
    digest = hashlib.sha256(raw)
    calibrations = _calibrations(path, catalog, source, digest)
    source.finish()
    return Routing(catalog, digest.hexdigest()[:16], calibrations, _written_s(path))


def _written_s(path: Path) -> int:
    try:
        return int(path.stat().st_mtime)
    except OSError:
        # It was there a moment ago, and what was read of it holds.
        return 0


def calibrations_of(path: Path, routing: Routing) -> Iterator[Path]:
    """The calibration files that the routing file at `path` names."""
    for model in routing.catalog.models:
        if model.cascade is not None:
            yield path.parent / model.cascade.calibration


def _catalog(source: YamlSource) -> Catalog:
    """The typed catalog; each deployment, model and setting is read by itself, so that all mistakes show at once."""
    data = source.data
    if not isinstance(data, dict):
        raise source.error((), "the file must hold `deployments` and `models`")
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Catalog):
        if field.name in _LISTS:
            values[field.name] = _list(data.get(field.name), field.name, source)
        elif field.name in data:
            values[field.name] = source.take(data[field.name], field.type, (field.name,))
    for name in data.keys() - fields_of(Catalog):
        source.note((name,), "no such setting")
    source.finish()
    return Catalog(**values)


def _list(data: Any, name: str, source: YamlSource) -> tuple[Any, ...]:
    if not isinstance(data, list):
        source.note((name,), "a list is needed")
        return ()
    return tuple(source.take(item, _LISTS[name], (name, i)) for i, item in enumerate(data))


def _calibrations(path: Path, catalog: Catalog, source: YamlSource, digest: hashlib._Hash) -> dict[str, Calibration]:
    found: dict[str, Calibration] = {}
    for i, model in enumerate(catalog.models):
        if model.cascade is None:
            continue
        at = ("models", i, "cascade", "calibration")
        try:
            raw = read_bytes(path.parent / model.cascade.calibration)
            found[model.name] = msgspec.json.decode(raw, type=Calibration)
            digest.update(raw)
        except FileErrors as errors:
            source.note(at, str(errors))
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            source.note(at, f"{model.cascade.calibration}: {error}")
    return found
