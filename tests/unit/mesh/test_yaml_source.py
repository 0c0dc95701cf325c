"""YAML files: whatever they hold, they are read, or refused with file, line and reason."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.yaml_source import FileErrors, Problem, YamlSource, decode

BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


class Part(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    count: int = 1


def refused(text: str, *, private: bool = False) -> list[str]:
    with pytest.raises(FileErrors) as caught:
        source = YamlSource(text, "f.yaml", private=private)
        _ = source.data
        source.finish()
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: 1\nrevision: 2026-11-31", "2: revision: reads as a date"),
        ("revision: 2026-11-30", "1: revision: reads as a date"),
        ("at: 2026-11-30 25:61:61", "1: at: reads as a date"),
        ("a: !!int ''", "1: a: is no int"),
        ("a: !!float x", "1: a: is no float"),
        ("a: !!bool maybe", "1: a: is no bool"),
        ("a: !!timestamp soon", "1: a: reads as a date"),
        ("a: 0b_", "1: a: is no int"),
        ("a: " + "9" * 5000, "1: a: is no int"),
        ("a: 99999999999999999999", "1: a: is out of range"),
        ("a: .nan", "1: a: is out of range"),
        ("a: -.inf", "1: a: is out of range"),
        ("a: 1:30", "1: a: reads as a number to base 60"),
        ("a: !!binary ====", "1: a: has a tag"),
        ("a: !!python/object/apply:os.system [ls]", "1: a: has a tag"),
        ("a: !!set {x}", "1: a: has a tag"),
        ("- 1\n- !mine x", "2: [1]: has a tag"),
        ("a: =", "1: a: is a lone `=`"),
        ("a:\n\tb: 1", "2: not YAML: found character"),
        ("a: 1\nb: \x00", "2: not YAML: it holds the character U+0000"),
        ("a: *b", "1: not YAML: found undefined alias"),
        ("a: [", "1: not YAML"),
        ("a: 1\nb: 'x\n", "2: not YAML"),
        ("--- 1\n--- 2", "2: not YAML"),
        ("[" * 100_000, "1: not YAML: nested deeper"),
        ("{a: " * 3_000, "1: not YAML: nested deeper"),
        ("- " * 3_000, "1: not YAML: nested deeper"),
        ("&a [*a]", "1: aliases stand for too much"),
        ("a: &x {b: *x}", "1: aliases stand for too much"),
        (BOMB, "1: aliases stand for too much"),
        ("a: 1\nb: {c: 1,\n  c: 2}", "3: b.c: given twice"),
        ("? [a]\n: b", "1: keys are plain words"),
    ],
)
def test_what_cannot_be_used_is_refused_where_it_stands(text: str, where: str) -> None:
    assert any(line.startswith(f"f.yaml:{where}") for line in refused(text)), refused(text)


def test_all_mistakes_are_reported_together_and_what_is_said_stays_short() -> None:
    assert len(refused("a: .nan\nb: 2026-01-01\nc: 1:2\nc: 3")) == 4
    many = refused("\n".join(f"- !x {i}" for i in range(5000)))
    assert len(many) == 101
    assert many[-1] == "f.yaml: and 4900 more"
    with pytest.raises(FileErrors) as caught:
        YamlSource(f"{{name: a, {'x' * 100_000}: 1}}", "f.yaml").convert(Part)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("text", ["- {name: 7}", "- {name: hr-1, hr-secret: 2}", "- hr-secret: [", "- !hr-secret x"])
def test_a_private_file_is_never_quoted(text: str) -> None:
    with pytest.raises(FileErrors) as caught:
        YamlSource(text, "f.yaml", private=True).convert(list[Part])
    assert "hr-" not in str(caught.value)
    assert str(caught.value).startswith("f.yaml:1: ")


def test_aliases_may_stand_for_something() -> None:
    source = YamlSource("a: &a [1, 2]\nb: *a\nc: {d: *a}\n", "f.yaml")
    assert source.data == {"a": [1, 2], "b": [1, 2], "c": {"d": [1, 2]}}
    source.note(("c", "d", 1), "wrong")
    with pytest.raises(FileErrors, match=r"f.yaml:1: c.d\[1\]: wrong"):
        source.finish()


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert YamlSource(decode(b"\xef\xbb\xbfa: 1", "f"), "f").data == {"a": 1}


def test_bytes_that_are_no_text_are_refused_with_their_line() -> None:
    with pytest.raises(FileErrors) as caught:
        decode(b"a: 1\nb: \xff\xfe", "f.yaml")
    assert (str(caught.value), caught.value.kind) == ("f.yaml:2: not YAML: not UTF-8", "encoding")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A pipe would be waited for, and a device never ends."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"#" * 100)
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "none", Path("/dev/zero"), tmp_path / "a\0b"):
        with pytest.raises(FileErrors, match="cannot be read: ") as caught:
            YamlSource.read(path)
        assert caught.value.kind == "unreadable"
    with pytest.raises(FileErrors, match="larger than 99 bytes"):
        YamlSource.read(tmp_path / "large", max_bytes=99)


SYNTAX = ("&a ", "*a", "!t ", "<<: ", "? ", ": ", "- ", "[", "]", "{", "}", "\n", "\t", ">\n", "'", '"', "%", "a: ")
SCALARS = ("---\n", "!!int ", "!!float ", "2026-02-30", "1:99", ".nan", "0b", "\x00", "\x85", "~")
SPECIAL = st.sampled_from(SYNTAX + SCALARS)


@given(st.lists(SPECIAL | st.text(max_size=3), max_size=30).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    found: tuple[Problem, ...] = ()
    try:
        source = YamlSource(text, "f.yaml")
        assert source.data is None or isinstance(source.data, bool | int | float | str | list | dict)
        source.finish()
    except FileErrors as errors:
        found = errors.found
    lines = len(text.splitlines()) or 1
    assert all(p.file == "f.yaml" and 1 <= p.line <= lines + 1 and p.reason for p in found)
