"""The stack file: what is read, what is refused and where, and how scaling rewrites it."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mesh import stack as stacks
from mesh.yaml_source import FileErrors

LOCAL = Path(__file__).parents[3] / "deploy" / "stacks" / "local.yaml"
GOOD = """\
name: test
control: 127.0.0.1:7000
edge: {listen: 127.0.0.1:8080, admin: 127.0.0.1:9901}
services:
  gateway: {kind: gateway, replicas: 2, ports: {grpc: 7100, http: 7150}}
  small:
    # one is enough here
    kind: inference
    ports: {grpc: 7300}
    env: {A: 1, B: yes}
    metadata: {deployment: smollm2}
"""


def problems(text: str) -> list[tuple[int, str]]:
    with pytest.raises(FileErrors) as caught:
        stacks.parse(text, "s.yaml")
    assert all(p.file == "s.yaml" for p in caught.value.found)
    return [(p.line, p.reason) for p in caught.value.found]


def test_the_stack_that_is_shipped_is_good() -> None:
    stack = stacks.load(LOCAL)
    assert [s.name for s in stack.services] == ["gateway", "router", "inference-small"]
    assert [r.id for r in stack.each_replica()] == ["gateway-0", "router-0", "inference-small-0"]


def test_replicas_are_named_and_numbered() -> None:
    stack = stacks.parse(GOOD)
    gateway = stack.service("gateway")
    assert gateway is not None
    assert [(r.id, r.address, dict(r.ports)) for r in gateway.each_replica()] == [
        ("gateway-0", "127.0.0.1:7100", {"grpc": 7100, "http": 7150}),
        ("gateway-1", "127.0.0.1:7101", {"grpc": 7101, "http": 7151}),
    ]
    small = stack.service("small")
    assert small is not None
    assert (small.replicas, small.env, small.metadata) == (1, {"A": "1", "B": "yes"}, {"deployment": "smollm2"})
    assert stack.service("large") is None


def test_every_mistake_is_reported_with_its_line() -> None:
    text = """\
name: test
control: nowhere
edge: {listen: 127.0.0.1:8080, admin: 0.0.0.0:9901}
services:
  router-1: {kind: router, ports: {grpc: 7200}}
  small:
    kind: inference
    replicas: -1
    ports: {http: 70000}
    colour: red
"""
    assert sorted(problems(text)) == [
        (2, "control: 'nowhere' is not host:port"),
        (3, "edge.admin: must be on loopback"),
        (5, "services.router-1: not a service's name (a-z, 0-9, -; neither 'edge' nor ending in -<n>)"),
        (8, "services.small.replicas: must be a whole number from 0 to 256"),
        (9, "services.small.ports.http: must be a whole number from 1 to 65535"),
        (9, "services.small.ports: 'grpc' is missing"),
        (10, "services.small: unknown key 'colour'; there are: kind, ports, replicas, env, metadata"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "the stack: 'name' is missing"),
        ("- a\n", 1, "the stack: must be a mapping"),
        ("name: a\nname: b\n", 2, "the stack: 'name' is there twice"),
        ("a: [", 1, "not YAML: "),
        ("a: \x00", 1, "not YAML: it holds the character U+0000"),
        ("name:\n", 1, "name: must be a single value"),
        ("name: ''\n", 1, "name: '' does not match"),
    ],
)
def test_what_is_no_stack_at_all(text: str, line: int, reason: str) -> None:
    assert any(at == line and why.startswith(reason) for at, why in problems(text))


def test_two_listeners_on_one_port_are_refused() -> None:
    assert problems(GOOD.replace("http: 7150", "http: 7101")) == [
        (5, "gateway-1.grpc: port 7101 is taken by gateway-0.http")
    ]
    assert problems(GOOD.replace("grpc: 7300", "grpc: 8080")) == [
        (8, "small-0.grpc: port 8080 is taken by edge.listen")
    ]


def test_scaling_keeps_comments_and_layout(tmp_path: Path) -> None:
    file = tmp_path / "stack.yaml"
    file.write_text(GOOD)
    stack = stacks.scale(file, {"gateway": 3, "small": 2})
    assert {s.name: s.replicas for s in stack.services} == {"gateway": 3, "small": 2}
    assert stacks.load(file) == stack
    expected = GOOD.replace("replicas: 2", "replicas: 3").replace("    kind: inf", "    replicas: 2\n    kind: inf")
    assert file.read_text() == expected
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("counts", "reason"), [({"nobody": 1}, "no service 'nobody'"), ({"small": 999}, "small.repl")])
def test_a_bad_scaling_changes_nothing(tmp_path: Path, counts: dict[str, int], reason: str) -> None:
    file = tmp_path / "stack.yaml"
    file.write_text(GOOD)
    with pytest.raises(FileErrors, match=reason):
        stacks.scale(file, counts)
    assert file.read_text() == GOOD


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileErrors, match="cannot be read"):
        stacks.load(tmp_path / "none.yaml")


@given(st.dictionaries(st.sampled_from(["gateway", "small"]), st.integers(0, 40)))
def test_scaling_sets_the_counts_and_nothing_else(counts: dict[str, int]) -> None:
    before = stacks.parse(GOOD)
    after = stacks.parse(stacks.with_replicas(GOOD, counts))
    assert {s.name: s.replicas for s in after.services} == {s.name: s.replicas for s in before.services} | counts
    as_yaml = yaml.safe_load(stacks.with_replicas(GOOD, counts))
    for service in as_yaml["services"].values():
        service.pop("replicas", None)
    original = yaml.safe_load(GOOD)
    for service in original["services"].values():
        service.pop("replicas", None)
    assert as_yaml == original


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    assert problems(text)
