"""The faults in force."""

import dataclasses

import pytest

from mesh.control.core.faults import MAX_FAULTS, SLOTS, FaultRegistry
from mesh.control.core.model import Fault
from mesh.errors import InvalidArgument, MeshError, NotFound, ResourceExhausted

from .builders import snapshot, stack

MESH = snapshot(stack(gateway=1, small=2, **{f"s{i}x": 1 for i in range(30)}))
GOOD = Fault("", "small", abort_code=14)


def test_a_fault_ends_by_itself_and_can_be_renewed() -> None:
    book = FaultRegistry()
    first = book.put(dataclasses.replace(GOOD, lasts_s=10), MESH, now=100)
    assert book.put(dataclasses.replace(GOOD, id=first, lasts_s=10), MESH, now=105) == first
    assert not book.expire(114)
    assert [f.id for f in book.all()] == [first]
    assert book.expire(115)
    assert book.all() == ()


def test_ids_are_chosen_around_those_that_are_taken() -> None:
    book = FaultRegistry()
    book.put(dataclasses.replace(GOOD, id="fault-1"), MESH, now=0)
    assert book.put(GOOD, MESH, now=0) == "fault-2"
    assert book.clear(("fault-1", "fault-1", "nobody")) == 1
    assert book.clear(()) == 1


def test_there_is_room_for_a_few_in_one_path_and_the_edges_is_the_gateways() -> None:
    book = FaultRegistry()
    for i in range(SLOTS):
        book.put(dataclasses.replace(GOOD, service="edge" if i % 2 else "gateway"), MESH, now=0)
    for service in ("edge", "gateway"):
        with pytest.raises(ResourceExhausted) as caught:
            book.put(dataclasses.replace(GOOD, service=service), MESH, now=0)
        assert caught.value.reason == "TOO_MANY_FAULTS"
    book.put(GOOD, MESH, now=0)


def test_there_is_room_for_so_many_in_all() -> None:
    book = FaultRegistry()
    with pytest.raises(ResourceExhausted):
        for i in range(30):
            for _ in range(SLOTS):
                book.put(dataclasses.replace(GOOD, service=f"s{i}x"), MESH, now=0)
    assert len(book.all()) == MAX_FAULTS


@pytest.mark.parametrize(
    ("change", "error", "field"),
    [
        ({"percent": 0.0}, InvalidArgument, "fault.percent"),
        ({"percent": 100.5}, InvalidArgument, "fault.percent"),
        ({"percent": float("nan")}, InvalidArgument, "fault.percent"),
        ({"abort_code": 17}, InvalidArgument, "fault.abort_code"),
        ({"abort_code": 0}, InvalidArgument, "fault"),
        ({"delay_s": -1.0}, InvalidArgument, "fault.delay"),
        ({"delay_s": 301.0}, InvalidArgument, "fault.delay"),
        ({"lasts_s": 0.0}, InvalidArgument, "fault.lasts"),
        ({"lasts_s": 3601.0}, InvalidArgument, "fault.lasts"),
        ({"id": "x" * 129}, InvalidArgument, "fault.id"),
        ({"tenant": "a\nb"}, InvalidArgument, "fault.tenant"),
        ({"service": "nobody"}, NotFound, "fault.service"),
        ({"replica": "small-9"}, NotFound, "fault.replica"),
        ({"service": "edge", "replica": "small-0"}, InvalidArgument, "fault.replica"),
        ({"service": "gateway", "replica": "gateway-0"}, InvalidArgument, "fault.replica"),
    ],
)
def test_what_is_wrong_is_refused_by_field(change: dict[str, object], error: type[MeshError], field: str) -> None:
    with pytest.raises(error) as caught:
        FaultRegistry().put(dataclasses.replace(GOOD, **change), MESH, now=0)
    assert caught.value.field == field
