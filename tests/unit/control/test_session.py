"""One xDS client's state, against the rules of the protocol."""

import pytest
from google.protobuf import any_pb2
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mesh.control.core.session import MAX_NAMES, Request, Response, Session
from mesh.control.core.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ORDER, ROUTES, Resource, ResourceSet
from mesh.errors import InvalidArgument


def resources(**by_name: str) -> ResourceSet:
    """The same names and contents in each type; "/" in a name is written "__"."""
    held = {n.replace("__", "/"): Resource(any_pb2.Any(), digest) for n, digest in by_name.items()}
    return ResourceSet("v", {type_url: held for type_url in ORDER})


def due(session: Session, held: ResourceSet) -> list[Response]:
    return list(session.due(held))


def ack(session: Session, response: Response, names: tuple[str, ...], error: str | None = None) -> None:
    session.receive(Request(response.type_url, names, response.nonce, error))


def test_what_was_sent_is_not_due_again_until_it_changes() -> None:
    session = Session()
    session.receive(Request(CLUSTER, ("a", "b")))
    (first,) = due(session, resources(a="1", c="1"))
    assert first.names == ("a",)
    ack(session, first, ("a", "b"))
    assert due(session, resources(a="1", c="2")) == []
    (second,) = due(session, resources(a="2"))
    assert second.version != first.version
    (third,) = due(session, resources(a="2", b="1"))
    assert third.names == ("a", "b")


def test_equal_contents_have_equal_versions_in_any_session() -> None:
    versions = set()
    for _ in range(2):
        session = Session()
        session.receive(Request(LISTENER, ("b", "a")))
        versions.add(due(session, resources(a="1", b="2"))[0].version)
    assert len(versions) == 1


def test_everything_is_the_edges_and_only_for_a_first_request_without_names() -> None:
    session = Session()
    session.receive(Request(CLUSTER, ()))
    (first,) = due(session, resources(edge__a="1", a="1"))
    assert first.names == ("edge/a",)
    ack(session, first, ())
    (gone,) = due(session, resources(a="1"))
    assert gone.names == ()
    by_name = Session()
    by_name.receive(Request(CLUSTER, ("a",)))
    (answer,) = due(by_name, resources(edge__a="1", a="1"))
    ack(by_name, answer, ())
    assert due(by_name, resources(edge__a="2", a="2")) == []
    endpoints = Session()
    endpoints.receive(Request(ENDPOINTS, ()))
    assert [r.names for r in due(endpoints, resources(edge__a="1"))] == [()]


def test_a_refusal_is_recorded_and_not_answered() -> None:
    session = Session()
    session.receive(Request(ROUTES, ("a",)))
    (first,) = due(session, resources(a="1"))
    ack(session, first, ("a",), error="no" * 5000)
    (state,) = session.subscriptions()
    assert (state.nacked_version, state.acked_version, len(state.nack_message)) == (first.version, "", 2000)
    assert due(session, resources(a="1")) == []
    (second,) = due(session, resources(a="2"))
    ack(session, second, ("a",))
    assert (state.nacked_version, state.acked_version) == ("", second.version)


def test_an_answer_to_an_older_response_is_ignored() -> None:
    session = Session()
    session.receive(Request(CLUSTER, ("a",)))
    (first,) = due(session, resources(a="1"))
    (second,) = due(session, resources(a="2"))
    ack(session, first, ("a", "b"), error="no")
    (state,) = session.subscriptions()
    assert (state.names, state.nack_message) == (("a",), "")
    ack(session, second, ("a",))
    assert state.acked_version == second.version


def test_what_was_given_back_is_sent_when_asked_for_again() -> None:
    session = Session()
    session.receive(Request(CLUSTER, ("a", "b")))
    held = resources(a="1", b="1")
    (first,) = due(session, held)
    ack(session, first, ("a",))
    assert due(session, held) == []
    ack(session, first, ("a", "b"))
    assert [r.names for r in due(session, held)] == [("a", "b")]


def test_unknown_types_are_ignored_and_too_many_names_refused() -> None:
    session = Session()
    assert session.receive(Request("type.googleapis.com/secret", ("a",))) is None
    assert due(session, resources(a="1")) == []
    with pytest.raises(InvalidArgument):
        session.receive(Request(CLUSTER, tuple(str(i) for i in range(MAX_NAMES + 1))))


@given(st.permutations(ORDER))
def test_types_are_due_in_the_order_of_what_they_refer_to(types: list[str]) -> None:
    session = Session()
    for type_url in types:
        session.receive(Request(type_url, ("a",)))
    assert [r.type_url for r in due(session, resources(a="1"))] == list(ORDER)


NAMES = ("a", "b", "edge/x")


class Conversation(RuleBasedStateMachine):
    """A client that applies what it is sent always ends up with what is there, however the two interleave."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session()
        self.content = {"a": "0"}
        self.wanted: tuple[str, ...] = ("a",)
        self.known: dict[str, str] = {}
        self.nonce = ""
        self.unanswered: list[Response] = []
        self.session.receive(Request(CLUSTER, self.wanted))
        self._push()

    def _set(self) -> ResourceSet:
        held = {n: Resource(any_pb2.Any(), d) for n, d in self.content.items()}
        return ResourceSet("v", {t: held for t in ORDER})

    def _push(self) -> None:
        for response in self.session.due(self._set()):
            self.known = {name: self.content[name] for name in response.names}
            self.unanswered.append(response)

    @rule(name=st.sampled_from(NAMES), digest=st.sampled_from(["0", "1", "2", ""]))
    def change(self, name: str, digest: str) -> None:
        if digest:
            self.content[name] = digest
        else:
            self.content.pop(name, None)
        self._push()

    @rule(wanted=st.sets(st.sampled_from(NAMES), min_size=1), refuse=st.booleans())
    def answer_and_ask(self, wanted: set[str], refuse: bool) -> None:
        self.wanted = tuple(sorted(wanted))
        for response in self.unanswered:
            self.nonce = response.nonce
            self.known = {n: d for n, d in self.known.items() if n in wanted}
            ack(self.session, response, self.wanted, "no" if refuse else None)
        if not self.unanswered:
            self.session.receive(Request(CLUSTER, self.wanted, self.nonce))
            self.known = {n: d for n, d in self.known.items() if n in wanted}
        self.unanswered.clear()
        self._push()

    @invariant()
    def the_client_has_what_it_wants(self) -> None:
        expected = {n: d for n, d in self.content.items() if n in self.wanted}
        assert {n: d for n, d in self.known.items() if n in self.wanted} == expected


TestConversation = Conversation.TestCase
