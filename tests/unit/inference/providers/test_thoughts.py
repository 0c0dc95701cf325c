"""When a caller is told of a model that thinks."""

from __future__ import annotations

from inference.core.providers.thoughts import Thoughts


def test_only_new_signs_of_work_are_told_and_not_too_often() -> None:
    """A silence is none, and an answer that has begun speaks for itself."""
    thoughts = Thoughts()
    assert not thoughts.tell(0, 0.0)
    assert thoughts.tell(1, 0.1)
    assert not thoughts.tell(2, 0.3)
    assert thoughts.tell(2, 0.7)
    assert not thoughts.tell(2, 5.0)
    assert thoughts.tell(3, 5.1)
    thoughts.over = True
    assert not thoughts.tell(9, 9.0)
