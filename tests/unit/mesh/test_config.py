"""Configuration reports every mistake together and opens nothing."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest

from mesh.config import ConfigErrors, Secret, load


@dataclass(frozen=True)
class Limits:
    max_inflight: Annotated[int, msgspec.Meta(ge=1)] = 10


@dataclass(frozen=True)
class Config:
    listen: str
    mode: Literal["fast", "safe"] = "safe"
    ratio: float = 0.5
    verbose: bool = False
    home: Path = Path("/nowhere")
    names: tuple[str, ...] = ()
    key: Secret | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.mode == "fast" and self.ratio > 0.9:
            raise ValueError("mode fast wants a ratio of at most 0.9")


def test_reads_every_type() -> None:
    config = load(
        Config,
        "HEADRACE_X_",
        {
            "HEADRACE_X_LISTEN": "127.0.0.1:1",
            "HEADRACE_X_MODE": "fast",
            "HEADRACE_X_RATIO": "0.25",
            "HEADRACE_X_VERBOSE": "true",
            "HEADRACE_X_HOME": "/data",
            "HEADRACE_X_NAMES": "a, b,",
            "HEADRACE_X_KEY": "hush",
            "HEADRACE_X_MAX_INFLIGHT": "3",
            "OTHER": "ignored",
        },
    )
    assert config.listen == "127.0.0.1:1"
    assert (config.mode, config.ratio, config.verbose) == ("fast", 0.25, True)
    assert config.home == Path("/data")
    assert config.names == ("a", "b")
    assert config.key is not None
    assert config.key.reveal() == "hush"
    assert config.limits.max_inflight == 3


def test_reports_all_mistakes_at_once_by_variable() -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(
            Config,
            "HEADRACE_X_",
            {"HEADRACE_X_RATIO": "much", "HEADRACE_X_MAX_INFLIGHT": "0", "HEADRACE_X_LISTN": "typo"},
        )
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    for name in ("HEADRACE_X_LISTEN: required", "HEADRACE_X_RATIO", "HEADRACE_X_MAX_INFLIGHT", "HEADRACE_X_LISTN"):
        assert name in text


def test_reports_what_spans_fields() -> None:
    env = {"HEADRACE_X_LISTEN": "a:1", "HEADRACE_X_MODE": "fast", "HEADRACE_X_RATIO": "0.95"}
    with pytest.raises(ConfigErrors, match="ratio of at most"):
        load(Config, "HEADRACE_X_", env)


def test_secrets_never_show() -> None:
    config = load(Config, "HEADRACE_X_", {"HEADRACE_X_LISTEN": "a:1", "HEADRACE_X_KEY": "sk-very-secret"})
    assert "sk-very-secret" not in f"{config!r} {config} {config.key}"
