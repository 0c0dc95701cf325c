"""Labelled questions: what a cascade is calibrated from. A CSV or JSON-lines row a question, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

# The cheap model's figures on its own answer, as the node gives them; any of them may be missing.
ANSWER_FIGURES = ("mean_logprob", "min_logprob", "mean_entropy", "mean_margin")
_TRUE = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}


class Labelled(NamedTuple):
    """One question with how good either model's answer was, 0 to 1."""

    prompt: str
    weak: float
    strong: float
    # What the cross-validation keeps together, for example a subject.
    group: str
    # The cheap model's answer; empty when the file has none.
    answer: str
    figures: Mapping[str, float]


class Columns(NamedTuple):
    """Where a row says what."""

    prompt: str = "prompt"
    weak: str = "weak"
    strong: str = "strong"
    group: str = "group"
    answer: str = "answer"


class LabelError(ValueError):
    """A file that cannot be used; the message names file, row and column."""


def read(path: Path, columns: Columns) -> list[Labelled]:
    """Every row. Raises LabelError, also when there are none."""
    raw = path.read_bytes()
    try:
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise LabelError(f"{path}: {error}") from error
    is_csv = ".csv" in path.suffixes
    rows: Iterable[Mapping[str, object]] = csv.DictReader(io.StringIO(text)) if is_csv else _json_lines(path, text)
    labelled = [_labelled(path, number, row, columns) for number, row in enumerate(rows, start=1)]
    if not labelled:
        raise LabelError(f"{path}: no rows")
    return labelled


def _json_lines(path: Path, text: str) -> Iterator[Mapping[str, object]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise LabelError(f"{path}: line {number}: {error}") from error
            if not isinstance(row, dict):
                raise LabelError(f"{path}: line {number}: not an object")
            yield row


def _labelled(path: Path, number: int, row: Mapping[str, object], columns: Columns) -> Labelled:
    at = f"{path}: row {number}"
    for name in (columns.prompt, columns.weak, columns.strong):
        if row.get(name) in (None, ""):
            raise LabelError(f"{at}: no column {name!r}; the file has {', '.join(map(repr, row))}")
    known = {name: row[name] for name in ANSWER_FIGURES if row.get(name) not in (None, "")}
    return Labelled(
        prompt=str(row[columns.prompt]),
        weak=_quality(row[columns.weak], f"{at}: {columns.weak}"),
        strong=_quality(row[columns.strong], f"{at}: {columns.strong}"),
        group=str(row.get(columns.group) or number),
        answer=str(row.get(columns.answer) or ""),
        figures={name: _number(value, f"{at}: {name}") for name, value in known.items()},
    )


def _quality(value: object, at: str) -> float:
    quality = _TRUE.get(str(value).strip().lower())
    if quality is None:
        quality = _number(value, at)
    if not 0.0 <= quality <= 1.0:
        raise LabelError(f"{at}: {value!r} is not between 0 and 1")
    return quality


def _number(value: object, at: str) -> float:
    try:
        number = float(str(value))
    except ValueError:
        raise LabelError(f"{at}: {value!r} is not a number") from None
    if not math.isfinite(number):
        raise LabelError(f"{at}: {value!r} is not finite")
    return number
