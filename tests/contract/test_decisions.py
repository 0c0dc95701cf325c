"""Decisions are found by number, and say when they were taken and whether they hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs/adr"
PAGES = sorted(FOLDER.glob("*.md"))
_HEADING = re.compile(r"# (?:ADR )?0*(\d+)[.:] \S.*")
_STATUS = re.compile(r"\d{4}-\d\d-\d\d\. (Accepted|Replaced by \d{4})\.")


def test_there_are_decisions_and_each_number_is_taken_once() -> None:
    numbers = [page.name[:4] for page in PAGES]
    assert numbers
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name[:4])
def test_a_decision_has_a_title_a_date_and_a_status(page: Path) -> None:
    heading, blank, status, *_ = page.read_text().splitlines()
    titled = _HEADING.fullmatch(heading)
    assert titled is not None, f"{heading!r}: '# <number>. <title>' is needed"
    assert int(titled[1]) == int(page.name[:4])
    assert blank == ""
    assert _STATUS.fullmatch(status), f"{status!r}: '<date>. Accepted.' or '<date>. Replaced by <number>.' is needed"
