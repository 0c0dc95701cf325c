from __future__ import annotations

import pytest

from inference.core.constraints.regex_size import written_out


@pytest.mark.parametrize(
    ("source", "size", "largest"),
    [
        ("", 0, 0),
        ("abc", 3, 0),
        (r"a\d[^\]x]{3}", 5, 3),
        ("(ab){2,5}c", 11, 5),
        ("((a{3}b){2}|c){4}", 36, 4),
        ("(?:ab|cd){10,}", 40, 10),
        ("a*(b+c?)+", 3, 0),
        (r"\{9\}[{5}]", 4, 0),
        ("a{0}b", 2, 0),
        ("(x{1,30}){1,30}", 900, 30),
    ],
)
def test_repetitions_count_as_often_as_they_may_come(source, size, largest):
    assert written_out(source) == (size, largest)
