"""Configuration reports every mistake together and opens nothing."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest

from gateway.config import GatewayConfig
from mesh.address import ListenAddress, PeerAddress, Target, is_everywhere, split
from mesh.config import ConfigErrors, Secret, load
from mesh.lifecycle import ProcessConfig
from router.config import RouterConfig


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


@dataclass(frozen=True)
class Sockets(ProcessConfig):
    http: ListenAddress = "127.0.0.1:0"
    router: Target = "xds:///router"
    control: PeerAddress = ""


WRONG = {
    "LISTEN": [
        "localhost",
        "8080",
        ":8080",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:http",
        "::1:80",
        "a b:1",
        "",
        "-:1",
    ],
    "HTTP": ["localhost", "8080", "http://127.0.0.1:80", "127.0.0.1:-1", "[::1]", "[::1:80", "127.0.0.1:٣"],
    "ROUTER": ["xds:///", "xds:///a/b", "xds://router", "router", "127.0.0.1:0"],
    "CONTROL": ["127.0.0.1:0", "control", "7000"],
    "CONSUL": ["127.0.0.1", "127.0.0.1:0"],
    "METRICS_HOST": ["", "127.0.0.1:9", "::1", "a b"],
    "METRICS_PORT": ["-1", "65536", "http", "", "1.5"],
    "LOG_LEVEL": ["verbose", "", "10", "notset"],
    "DRAIN_DELAY_S": ["inf", "nan", "-1", "1e999", "soon", ""],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_what_is_no_address_port_level_or_time_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(Sockets, "HEADRACE_X_", {f"HEADRACE_X_{name}": value})
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [f"HEADRACE_X_{name}"]


def test_all_of_them_are_refused_together() -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(Sockets, "HEADRACE_X_", {f"HEADRACE_X_{name}": values[0] for name, values in WRONG.items()})
    assert len(caught.value.problems) == len(WRONG)


def test_what_is_right_is_taken_and_empty_stands_for_an_empty_default() -> None:
    env = {
        "LISTEN": "[::1]:0",
        "HTTP": "0.0.0.0:8080",
        "ROUTER": "router.internal:7200",
        "CONTROL": "",
        "CONSUL": "",
        "METRICS_HOST": "[::1]",
        "LOG_LEVEL": "WARNING",
    }
    config = load(Sockets, "HEADRACE_X_", {f"HEADRACE_X_{name}": value for name, value in env.items()})
    assert (config.listen, config.http, config.router) == ("[::1]:0", "0.0.0.0:8080", "router.internal:7200")
    assert (config.control, config.consul, config.metrics_host, config.log_level) == ("", "", "[::1]", "warning")
    assert split(config.listen) == ("::1", 0)
    assert is_everywhere(config.http)
    assert not is_everywhere(config.listen)


@pytest.mark.parametrize(("config_type", "name"), [(GatewayConfig, "GATEWAY"), (RouterConfig, "ROUTER")])
def test_the_services_settings_are_checked_so(config_type: type, name: str) -> None:
    env = {
        f"HEADRACE_{name}_LISTEN": "8080",
        f"HEADRACE_{name}_CONTROL": "control",
        f"HEADRACE_{name}_LOG_LEVEL": "loud",
    }
    with pytest.raises(ConfigErrors) as caught:
        load(config_type, f"HEADRACE_{name}_", env | {"HEADRACE_GATEWAY_HTTP": "localhost"})
    assert len([p for p in caught.value.problems if "required" not in p]) == (4 if name == "GATEWAY" else 3)
