"""The drill files: those that ship are right, and wrong ones are refused with file, line and reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.yaml_source import FileErrors
from ops.drills.spec import read

_FOLDER = Path(__file__).resolve().parents[2] / "deploy/drills"
_WHOLE = """\
name: sample
about: A sample.
stack:
  nodes:
    paced: {replicas: 2}
  providers:
    shaky: {}
  routing:
    models:
      - {name: demo, attempts: 4}
load: {model: demo}
faults:
  - {what: kill, target: paced-1}
expect: {lost: 0}
sabotage:
  about: no net
  set: {stack.routing.models.0.attempts: 1}
"""


@pytest.mark.parametrize("path", sorted(_FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_ships_is_right(path: Path) -> None:
    """Every file can be read, with and without its safety net, and the two differ."""
    assert read(path) != read(path, sabotaged=True)


def test_every_fault_that_is_promised_has_a_drill() -> None:
    """Processes, the data plane at the edge and inside, Consul, and each way in which a provider goes wrong."""
    drills = [read(path) for path in _FOLDER.glob("*.yaml")]
    parts = [part for drill in drills for part in drill.faults]
    assert any(part.tenant for part in parts)
    assert {part.what for part in parts} == {"kill", "stop", "abort", "delay", "provider", "partition", "requests"}
    assert {part.fault["kind"] for part in parts if part.fault} >= {
        *("cut", "stall", "malformed", "silent", "drip", "error_body", "no_done", "rate_limit", "status", "refuse"),
    }


def test_sabotage_changes_what_it_names(tmp_path: Path) -> None:
    """And nothing else; the file's own net stays for the next run."""
    file = tmp_path / "sample.yaml"
    file.write_text(_WHOLE)
    assert read(file, sabotaged=True).stack.routing["models"][0] == {"name": "demo", "attempts": 1}
    assert read(file).stack.routing["models"][0] == {"name": "demo", "attempts": 4}


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("name: sample", "name: other", 1, "must be the file's: sample"),
        ("model: demo}", "model: demo, streams: 0}", 11, "Expected `int` >= 1"),
        ("model: demo}", "model: demo, streems: 3}", 11, "unknown field `streems`"),
        ("load: {model: demo}\n", "", 1, "missing required field `load`"),
        ("what: kill", "what: explode", 13, "Invalid enum value"),
        ("target: paced-1", "target: paced-2", 13, "'paced-2' is not there; there are: paced-0, paced-1, shaky-0"),
        ("what: kill, target: paced-1", "what: requests", 13, "are missing: nothing is asked"),
        ("what: kill, target: paced-1", "what: partition", 13, "needs `consul: true`"),
        ("what: kill, target: paced-1", "what: provider, target: paced", 13, "'paced' is not there"),
        ("what: kill, target: paced-1", "what: provider, target: shaky, fault: {kind: x}", 13, "Invalid enum value"),
        ("shaky: {}", "paced: {}", 7, "is the name of nodes, too"),
        ("{lost: 0}", "{lost: -1}", 14, "Expected `int` >= 0"),
        ("{lost: 0}", "{bystanders_touched: 0}", 14, "the load has no bystanders"),
        ("{lost: 0}", "{min_called: {nobody: 1}}", 14, "is no provider of the stack"),
        ("models.0.attempts", "models.7.attempts", 17, "points nowhere"),
        ("stack.routing.models.0.attempts: 1", "load.streams: none", 17, "makes no drill"),
        ("{lost: 0}", "{lost: 0, lost: 1}", 14, "given twice"),
        ("faults:", "faults: [", 13, "not YAML"),
    ],
)
def test_wrong_files_are_refused_where_they_are_wrong(
    tmp_path: Path, old: str, new: str, line: int, reason: str
) -> None:
    """One mistake each."""
    file = tmp_path / "sample.yaml"
    assert old in _WHOLE
    file.write_text(_WHOLE.replace(old, new, 1))
    with pytest.raises(FileErrors) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert reason in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """In words."""
    with pytest.raises(FileErrors, match="cannot be read"):
        read(tmp_path / "none.yaml")
