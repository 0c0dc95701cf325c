"""Calibration learns what is there to learn, says what it is worth, and refuses what it cannot use."""

import gzip
import json
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.adapters.labelled import Columns, LabelError, read
from router.calibrate import main
from router.core.calibrating import calibrate
from router.core.calibration import Calibration
from router.core.cascade import after, before
from router.core.cascade_features import Answer
from router.core.fitting import curve, fit, random_share


def rows(count: int = 400) -> list[dict[str, object]]:
    """Questions whose difficulty shows: the cheap model fails at long ones with sums in them."""
    chance = random.Random(7)
    made = []
    for i in range(count):
        hard = chance.random() < 0.5
        prompt = "Solve 12 * 7 + 3 = x and prove it step by step, please." * 3 if hard else "Name a colour."
        fails = chance.random() < (0.8 if hard else 0.1)
        made.append({"prompt": f"{prompt} ({i})", "weak": str(not fails), "strong": "True", "group": f"g{i % 8}"})
    return made


def write(path: Path, made: list[dict[str, object]]) -> Path:
    text = "\n".join(map(json.dumps, made)).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def test_a_calibration_beats_the_coin_and_decides_at_run_time(tmp_path: Path) -> None:
    file = write(tmp_path / "labels.jsonl.gz", rows())
    result = calibrate(read(file, Columns()), 0.95, "test")
    assert result.strong_share < result.random_share - 0.1
    assert before("Name a colour. (1)", result.calibration).escalate is False
    hard = "Solve 12 * 7 + 3 = x and prove it step by step, please." * 3
    assert before(hard, result.calibration).escalate is True


def test_answers_calibrate_the_confidence(tmp_path: Path) -> None:
    made = rows()
    for row in made:
        sure = row["weak"] == "True"
        row |= {"answer": "It is so.", "mean_logprob": -0.1 if sure else -2.0}
    result = calibrate(read(write(tmp_path / "l.jsonl", made), Columns()), 0.99, "test")
    assert result.calibration.difficulty is None
    assert after("Name a colour.", Answer("It is so.", mean_logprob=-2.0), result.calibration).escalate is True
    assert after("Name a colour.", Answer("It is so.", mean_logprob=-0.1), result.calibration).escalate is False


def test_the_command_writes_what_the_router_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = write(tmp_path / "l.jsonl", rows()), tmp_path / "calibration.json"
    assert main([str(file), "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["questions"] == 400
    assert said["strong_share"] < said["random_share"]
    written = msgspec.json.decode(out.read_bytes(), type=Calibration)
    assert written.difficulty is not None
    assert 0.0 < written.difficulty_threshold < 1.0


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"prompt": "x", "strong": "True"}, "no column 'weak'"),
        ({"prompt": "x", "weak": "perhaps", "strong": "True"}, "'perhaps' is not a number"),
        ({"prompt": "x", "weak": "3", "strong": "True"}, "not between 0 and 1"),
    ],
)
def test_a_bad_row_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: dict[str, object], complaint: str
) -> None:
    file = write(tmp_path / "l.jsonl", [{"prompt": "y", "weak": "1", "strong": "1"}, row])
    with pytest.raises(LabelError, match="row 2"):
        read(file, Columns())
    assert main([str(file)]) == 64
    assert complaint in capsys.readouterr().err


def test_labels_that_are_all_alike_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to learn"):
        fit(["a"], np.ones((3, 1)), np.ones(3))


@given(
    pairs=st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 1)), min_size=1, max_size=60),
    share=st.floats(0, 1),
)
def test_a_curve_runs_from_the_weak_to_the_strong_quality(pairs: list[tuple[bool, bool, float]], share: float) -> None:
    weak, strong, scores = (np.array([float(p[i]) for p in pairs]) for i in range(3))
    drawn = curve(scores, weak, strong)
    assert drawn.quality_at(0.0) == pytest.approx(weak.mean())
    assert drawn.quality_at(1.0) == pytest.approx(strong.mean())
    assert 0.0 <= drawn.quality_at(share) <= 1.0
    reached = drawn.share_for(float(strong.mean()))
    assert drawn.quality_at(reached) >= strong.mean() - 1e-9
    assert 0.0 <= random_share(weak, strong, float(strong.mean())) <= 1.0
