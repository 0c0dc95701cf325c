"""What Consul's answers mean."""

from typing import Any

from mesh.control.core.consul_entries import read_entries, restarted
from mesh.control.core.model import Health


def entry(replica: str, *checks: tuple[str, str], address: str = "10.0.0.7", **meta: str) -> dict[str, Any]:
    return {
        "Node": {"Address": "10.0.0.1"},
        "Service": {"ID": replica, "Address": address, "Port": 7300, "Meta": meta, "Weights": {"Passing": 3}},
        "Checks": [{"Status": status, "Output": output} for status, output in checks],
    }


def test_an_entry_becomes_a_replica() -> None:
    (replica,) = read_entries([entry("small-0", ("passing", ""), kind="inference", **{"port-http": "8080"})])
    assert (replica.address, replica.weight, replica.verdict.health) == ("10.0.0.7:7300", 3, Health.HEALTHY)
    assert replica.ports == (("grpc", 7300), ("http", 8080))
    assert replica.metadata == (("kind", "inference"),)


def test_without_an_address_of_its_own_it_is_the_nodes() -> None:
    (replica,) = read_entries([entry("small-0", address="")])
    assert replica.address == "10.0.0.1:7300"


def test_any_failing_check_takes_it_out_and_one_that_has_not_run_says_nothing() -> None:
    failing, new = read_entries(
        [
            entry("a-0", ("passing", "ok"), ("critical", "connection refused\n" + "x" * 500)),
            entry("a-1", ("critical", "")),
        ]
    )
    assert failing.verdict.health is Health.UNHEALTHY
    assert failing.verdict.reason.startswith("connection refused")
    assert len(failing.verdict.reason) == 200
    assert new.verdict.health is Health.UNKNOWN


def test_replicas_are_in_one_order_however_they_come() -> None:
    entries = [entry("b-0"), entry("a-0"), entry("b-0")]
    assert read_entries(entries) == read_entries(reversed(entries))
    assert [r.id for r in read_entries(entries)] == ["a-0", "b-0"]


def test_after_a_restart_what_is_forgotten_or_unchecked_is_as_it_was() -> None:
    before = read_entries([entry(f"a-{i}", ("passing", "")) for i in range(3)])
    now = read_entries([entry("a-1", ("critical", "")), entry("a-2", ("critical", "dead")), entry("a-3")])
    assert [(r.id, r.verdict.health) for r in restarted(before, now)] == [
        ("a-0", Health.HEALTHY),
        ("a-1", Health.HEALTHY),
        ("a-2", Health.UNHEALTHY),
        ("a-3", Health.HEALTHY),
    ]
