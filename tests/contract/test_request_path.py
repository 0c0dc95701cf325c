"""docs/request-path.md: the files are there, and none is entered twice on one way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs" / "request-path.md").read_text()
_ROW = re.compile(r"^\| (\d+) \| \[(.+?)\]\(\.\./(.+?)\) \| .+ \|$", re.MULTILINE)


@pytest.mark.parametrize(("heading", "at_least"), [("The way in", 20), ("The way out", 10)])
def test_no_room_is_entered_twice_on_one_way(heading: str, at_least: int) -> None:
    part = _PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = _ROW.findall(part)
    assert [int(number) for number, *_ in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= at_least
    files = [file for _, file, _ in rows]
    assert len(set(files)) == len(files)
    assert all(shown == linked and (_ROOT / linked).is_file() for _, shown, linked in rows)
