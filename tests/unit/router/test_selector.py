"""Filters, scorers, strategies and the pick."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.router.v1 import router_pb2
from mesh.errors import FailedPrecondition, Outcome, ResourceExhausted, Unavailable
from router.core import filters, scorers
from router.core.catalog import Deployment, KeywordRule, Model, Price, Ramp
from router.core.request_profile import profile_of
from router.core.selector import Selected, SelectionRequest
from tests.unit.router.surroundings import World, profile


def dep(name: str, **options) -> Deployment:
    return Deployment(name=name, service=options.pop("service", name), model="m", **options)


def model(*chain, **options) -> Model:
    return Model(name="pub", chain=chain, **options)


def test_tools_and_past_calls_count_towards_the_prompt() -> None:
    request = router_pb2.GenerateRequest()
    chat = request.generation.prompt.chat
    chat.messages.add(role=3).content.add(text="x" * 400)
    plain = profile_of(request).prompt_tokens
    chat.tools.add(name="f", description="y" * 400, parameters_json="z" * 800)
    chat.messages.add(role=4).tool_calls.add(id="c", name="f", arguments_json="a" * 400)
    # The names and what a template writes around a message come on top.
    assert plain + 400 <= profile_of(request).prompt_tokens < plain + 420
    assert profile_of(request).needs == {"chat", "tools"}


def test_calls_in_the_history_need_tools_though_none_are_offered() -> None:
    """A template that knows no tools cannot write them out."""
    for role, calls in ((4, 1), (5, 0)):
        request = router_pb2.GenerateRequest()
        message = request.generation.prompt.chat.messages.add(role=role)
        for _ in range(calls):
            message.tool_calls.add(id="c", name="f", arguments_json="{}")
        assert profile_of(request).needs == {"chat", "tools"}
    plain, able = dep("plain"), dep("able", capabilities=frozenset({"chat", "tools"}))
    world = World([plain, able], model("plain", "able"))
    choice = world.selector.choose(SelectionRequest(profile_of(request), world.route, ()), world.clock.now, world.steps)
    assert isinstance(choice, Selected)
    assert choice.candidate.key == "able/able-0"


ALL = (
    *(scorers.load, scorers.latency, scorers.price, scorers.weight),
    *(scorers.affinity, scorers.split, scorers.tier, scorers.region),
)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), count=st.integers(1, 8))
def test_every_score_is_within_0_and_1_and_somebody_is_best(data, count) -> None:
    draw = data.draw
    price, share = st.floats(0, 100), st.floats(0, 1)
    deployments = [
        dep(f"d{i}", price=Price(draw(price), draw(price)), weight=draw(st.sampled_from([0.0, 0.5, 3.0])))
        for i in range(count)
    ]
    world = World(deployments, model(tuple(d.name for d in deployments)))
    candidates = list(world.candidates.values())
    for c in candidates:
        c.replica.report(
            queued=draw(st.integers(0, 500)),
            running=draw(st.integers(0, 50)),
            capacity=draw(st.integers(0, 50)),
            tokens_per_second=1.0,
            kv_used=draw(share),
            draining=False,
        )
        for seconds in draw(st.lists(st.floats(0, 1000), max_size=3)):
            c.ttft.add(seconds)
    for scorer in ALL:
        scores = scorer(profile(user=draw(st.text(max_size=3))), candidates, world.moment())
        assert len(scores) == len(candidates)
        assert all(0.0 <= s <= 1.0 for s in scores), scorer
    assert isinstance(world.choose(), Selected)


def test_the_cheapest_and_the_fastest_are_what_they_say() -> None:
    deployments = [dep("a", price=Price(1, 9)), dep("b", price=Price(1, 1)), dep("c", price=Price(5, 5))]
    assert World(deployments, model(("a", "b", "c"), strategy="cheapest")).chosen() == "b/b-0"
    world = World(deployments, model(("a", "b", "c"), strategy="fastest"))
    for name, seconds in (("a", 0.5), ("b", 0.9), ("c", 0.1)):
        world.candidates[f"{name}/{name}-0"].ttft.add(seconds)
    assert world.chosen() == "c/c-0"


def test_a_loaded_replica_is_left_for_an_idle_one() -> None:
    world = World([dep("a")], model("a"), replicas=3)
    busy = {"queued": 4, "running": 8, "capacity": 8, "tokens_per_second": 1.0, "kv_used": 0.5, "draining": False}
    for key in ("a/a-0", "a/a-2"):
        world.candidates[key].replica.report(**busy)
    assert {world.chosen(f"q{i}") for i in range(30)} == {"a/a-1"}


def test_one_conversation_stays_with_one_replica_until_that_is_too_busy() -> None:
    world = World([dep("a")], model("a"), replicas=4)
    home = world.chosen("a long conversation")
    assert {world.chosen("a long conversation") for _ in range(20)} == {home}
    spread = Counter(world.chosen(f"conversation {i}") for i in range(400))
    assert min(spread.values()) > 60
    world.candidates[home].replica.moved(20)
    assert world.chosen("a long conversation") != home
    # Where it goes does not depend on who else is there: when a stranger leaves, nobody else moves.
    world.candidates[home].replica.moved(-20)
    stranger = next(k for k in world.candidates if k != home)
    world.candidates[stranger].replica.healthy = False
    assert world.chosen("a long conversation") == home


@settings(max_examples=20, deadline=None)
@given(weights=st.lists(st.sampled_from([0.0, 1.0, 2.0, 5.0]), min_size=2, max_size=4).filter(any))
def test_a_split_follows_the_weights_and_users_stay(weights) -> None:
    deployments = [dep(f"d{i}", weight=w) for i, w in enumerate(weights)]
    world = World(deployments, model(tuple(d.name for d in deployments), strategy="weighted"))
    users = [f"user {i}" for i in range(600)]
    sides = {user: world.chosen(user=user) for user in users}
    counts = Counter(sides.values())
    for i, weight in enumerate(weights):
        assert counts[f"d{i}/d{i}-0"] / 600 == pytest.approx(weight / sum(weights), abs=0.08)
    # A canary that leaves moves its own users only.
    gone = counts.most_common(1)[0][0]
    if len(counts) > 1:
        world.candidates[gone].replica.healthy = False
        assert all(world.chosen(user=u) == side for u, side in sides.items() if side != gone)


def test_words_and_tasks_lead_where_the_rules_say() -> None:
    rules = (
        KeywordRule(use=("coder",), words=("python", "C++"), task="code"),
        KeywordRule(use=("poet",), words=("poem",)),
    )
    world = World(
        [dep("coder"), dep("poet"), dep("any")], model(("coder", "poet", "any"), strategy="keyword", keywords=rules)
    )
    assert world.chosen("Write some Python for me") == "coder/coder-0"
    assert world.chosen("is C++ old?") == "coder/coder-0"
    assert world.chosen("A Poem, please") == "poet/poet-0"
    assert world.chosen("anything", task="code") == "coder/coder-0"
    # Only whole words count.
    assert {world.chosen(f"pythonesque {i}") for i in range(30)} != {"coder/coder-0"}


def test_tiers_and_regions_prefer_and_require() -> None:
    deployments = [dep("eu", region="eu"), dep("us", region="us"), dep("gold", region="us", tier="premium")]
    world = World(deployments, model(("eu", "us", "gold"), strategy="region"))
    assert world.chosen(region="eu") == "eu/eu-0"
    assert {world.chosen(f"q{i}") for i in range(30)} == {"eu/eu-0", "us/us-0"}
    world.candidates["eu/eu-0"].replica.healthy = False
    assert world.chosen(region="eu") == "us/us-0"
    assert isinstance(world.choose(**{"require-region": "eu"}), Unavailable)
    tiers = World(deployments, model(("eu", "us", "gold"), strategy="tier"))
    assert tiers.chosen(tier="premium") == "gold/gold-0"
    assert "gold/gold-0" not in {tiers.chosen(f"q{i}") for i in range(30)}


def test_groups_are_tried_in_order() -> None:
    world = World([dep("a"), dep("b"), dep("c")], model("a", ("b", "c")))
    assert world.chosen() == "a/a-0"
    world.candidates["a/a-0"].endpoint.back_off(60.0)
    assert world.chosen() in ("b/b-0", "c/c-0")


def test_the_error_says_what_is_really_missing() -> None:
    world = World([dep("a", tenants=frozenset({"x"})), dep("b", tenants=frozenset({"x"}))], model("a", "b"))
    nobody = world.choose(tenant="y")
    assert isinstance(nobody, FailedPrecondition)
    assert nobody.reason == "NO_CAPABLE_DEPLOYMENT"
    assert "tenant" in nobody.message
    world.candidates["a/a-0"].endpoint.back_off(8.0)
    world.candidates["b/b-0"].endpoint.back_off(3.0)
    busy = world.choose(tenant="x")
    assert isinstance(busy, ResourceExhausted)
    assert busy.retry_after_s == pytest.approx(3.0)
    # One that is down and one that is busy: waiting helps, so the caller is told to wait.
    world.candidates["a/a-0"].endpoint.busy_until = 0.0
    world.candidates["a/a-0"].endpoint.admit().resolve(Outcome.FAULT)
    assert isinstance(world.choose(tenant="x"), ResourceExhausted)
    world.candidates["b/b-0"].replica.healthy = False
    down = world.choose(tenant="x")
    assert isinstance(down, Unavailable)
    assert down.reason == "NO_HEALTHY_DEPLOYMENT"
    assert down.retry_after_s == pytest.approx(5.0)


def test_one_that_is_due_for_a_probe_is_asked_on_the_side() -> None:
    world = World([dep("a"), dep("b")], model("a", "b"))
    a = world.candidates["a/a-0"]
    a.endpoint.admit().resolve(Outcome.FAULT)
    choice = world.choose()
    assert isinstance(choice, Selected)
    assert (choice.candidate.key, choice.probe) == ("b/b-0", None)
    world.clock.now += 5.0
    choice = world.choose()
    assert isinstance(choice, Selected)
    assert (choice.candidate.key, choice.probe) == ("b/b-0", a)
    world.candidates["b/b-0"].replica.healthy = False
    choice = world.choose()
    assert isinstance(choice, Selected)
    # It is all there is, so the request itself is the probe.
    assert (choice.candidate, choice.probe) == (a, None)


def test_a_newcomer_gets_a_growing_share() -> None:
    world = World([dep("a")], model("a"), replicas=1)
    world.selector.ramp = Ramp(seconds=10.0, start=0.1)
    old = {r.id: (r.service, r.address) for r in world.fleet.replicas.values()}
    world.fleet.seen({**old, "a-1": ("a", "h:new")}, world.clock.now)
    shares = []
    for _ in range(3):
        picks = Counter(world.chosen(f"q{i} {world.clock.now}") for i in range(400))
        shares.append(picks["a/a-1"] / 400)
        world.clock.now += 5.0
    assert shares[0] < 0.12
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] == pytest.approx(0.5, abs=0.12)
    # Alone, it gets everything at once.
    world.fleet.seen({"a-2": ("a", "h:newer")}, world.clock.now)
    assert world.chosen() == "a/a-2"


def test_the_estimate_of_a_prompt_never_refuses_for_good() -> None:
    small, large = dep("small", context=100), dep("large", context=200)
    world = World([small, large], model(("small", "large")))
    assert {world.chosen("x" * 600 + str(i)) for i in range(20)} == {"large/large-0"}
    # Larger than all: the largest is asked, and says exactly why not.
    assert world.chosen("x" * 4000) == "large/large-0"


def test_a_member_with_too_little_context_is_passed_over_when_a_later_one_has_it() -> None:
    chain = [dep("small", context=100), dep("middle", context=200), dep("large", context=4000)]
    world = World(chain, model("small", "middle", "large"))
    assert world.chosen("x" * 40) == "small/small-0"
    assert world.chosen("x" * 1200) == "large/large-0"
    # Larger than all: the one with the most is asked, wherever it stands.
    assert world.chosen("x" * 40_000) == "large/large-0"
    # The estimate may be wrong, and somebody who may say no is better than nobody.
    world.candidates["large/large-0"].replica.healthy = False
    assert world.chosen("x" * 1200) == "middle/middle-0"
    world.candidates["middle/middle-0"].replica.healthy = False
    world.candidates["small/small-0"].endpoint.back_off(9.0)
    assert isinstance(world.choose("x" * 1200), ResourceExhausted)
    world.candidates["small/small-0"].replica.healthy = False
    assert isinstance(world.choose("x" * 1200), Unavailable)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=6), st.randoms())
def test_filters_never_let_the_wrong_ones_through(states, chance: random.Random) -> None:
    deployments = [dep(f"d{i}") for i in range(len(states))]
    world = World(deployments, model(tuple(d.name for d in deployments)))
    for (healthy, busy, failed), c in zip(states, world.candidates.values(), strict=True):
        c.replica.healthy = healthy
        if failed:
            c.endpoint.admit().resolve(Outcome.FAULT)
        if busy:
            c.endpoint.back_off(chance.uniform(1, 4))
    fit = {f"d{i}/d{i}-0" for i, (healthy, busy, failed) in enumerate(states) if healthy and not busy and not failed}
    choice = world.choose()
    assert (choice.candidate.key in fit) if isinstance(choice, Selected) else not fit
    assert filters.kind_of(profile()) == filters.kind_of(profile("another"))
