"""The routing file: every mistake with its file, line and reason, all at once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.yaml_source import FileErrors
from router.adapters.routing_file import read
from router.core.catalog import resuming_of

GOOD = """\
deployments:
  - name: small
    service: s
    model: m
    capabilities: [chat, tools]
  - {name: large, service: l, model: m, capabilities: [chat]}
models:
  - name: pub
    chain: [small, large]
"""


def refused(tmp_path, text: str) -> list[str]:
    path = tmp_path / "router.yaml"
    path.write_text(text)
    with pytest.raises(FileErrors) as caught:
        read(path)
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


def test_a_good_file_is_read_and_versioned_by_content(tmp_path) -> None:
    path = tmp_path / "router.yaml"
    path.write_text(GOOD)
    first = read(path)
    assert [d.name for d in first.catalog.deployments] == ["small", "large"]
    assert first.version == read(path).version
    path.write_text(GOOD.replace("pub", "other"))
    assert first.version != read(path).version


@pytest.mark.parametrize(
    ("written", "meant"),
    [("tokens", "tokens"), ("text", "text"), ("off", "off"), ("false", "off"), ("true", "tokens"), ('"off"', "off")],
)
def test_how_answers_are_resumed_is_a_word_which_yaml_may_read_as_a_truth(tmp_path, written, meant) -> None:
    path = tmp_path / "router.yaml"
    path.write_text(f"{GOOD}    resume: {written}\n    commit: whole\n")
    (model,) = read(path).catalog.models
    assert (resuming_of(model), model.commit) == (meant, "whole")


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("model: m\n    cap", "modle: m\n    cap", 4, "modle"),
        ("service: s\n", "service: 7\n", 3, "Expected `str`"),
        ("[chat, tools]", "[chat, singing]", 5, "singing"),
        ("chain: [small, large]", "chain: [small, huge]", 9, "no deployment or model is called 'huge'"),
        ("chain: [small, large]", "chain: [pub]", 9, "pub -> pub"),
        ("chain: [small, large]", "chain: [small, small]", 9, "comes twice"),
        ("chain: [small, large]", "chain: [small, large]\n    needs: [tools]", 9, "'large' lacks"),
        ("chain: [small, large]", "chain: [small]\n    cascade: {calibration: c.json}", 10, "at least two"),
        ("chain: [small, large]", "chain: [small]\n    strategy: luck", 10, "Invalid enum value"),
        ("chain: [small, large]", "chain: [small]\n    resume: words", 10, "Invalid enum value"),
        ("chain: [small, large]", "chain: [small]\n    commit: half", 10, "Invalid enum value"),
        ("chain: [small, large]", "chain: [small]\n    strategy: keyword", 8, "need each other"),
        ("chain: [small, large]", "chain: [small]\n    shadow: {deployment: small}", 10, "asked twice"),
        (
            "chain: [small, large]",
            "chain: [small, large]\n    cascade: {calibration: c.json, judge: {deployment: nobody}}",
            10,
            "no deployment is called 'nobody'",
        ),
        (
            "chain: [small, large]",
            "chain: [small, large]\n    cascade: {calibration: c.json, window_tokens: 8, judge: {deployment: large}}",
            10,
            "grades whole answers",
        ),
        ("chain: [small, large]", "chain: [[small], []]", 9, "an empty group"),
        ("chain: [small, large]", "chain: []", 9, "at least one member"),
        ("chain: [small, large]", "chain: [small]\n    name: twice", 10, "given twice"),
        ("chain: [small, large]", "chain: [small]\n    attempts: 0", 10, ">= 1"),
        ("name: pub", "name: pub\n    tenants: [t]\n    strategy: balanced", None, None),
        ("- name: small", "- name: large", 6, "defined twice"),
        ("models:", "retry: {floor: 9, max_balance: 3}\nmodels:", 7, "larger than `max_balance`"),
        ("models:", "timers: {gap_s: 0}\nmodels:", 7, "> 0"),
        ("models:", "modles:", 7, "no such setting"),
    ],
)
def test_a_mistake_is_shown_with_its_line(tmp_path, old, new, line, said) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    if line is None:
        (tmp_path / "router.yaml").write_text(text)
        read(tmp_path / "router.yaml")
        return
    problems = refused(tmp_path, text)
    assert any(p.startswith(f"{line}:") and said in p for p in problems), problems


def test_all_mistakes_are_shown_together(tmp_path) -> None:
    text = GOOD.replace("service: s\n", "service: 7\n").replace("chain: [small, large]", "chain: 3")
    assert len(refused(tmp_path, text)) == 2


def test_a_longer_cycle_is_spelled_out(tmp_path) -> None:
    text = (
        GOOD.replace("chain: [small, large]", "chain: [a]") + "  - {name: a, chain: [b]}\n  - {name: b, chain: [pub]}\n"
    )
    problems = refused(tmp_path, text)
    assert len(problems) == 3
    assert "pub -> a -> b -> pub" in problems[0]


def test_an_impossible_fallback_is_refused(tmp_path) -> None:
    text = GOOD.replace("model: m, cap", "model: m, tenants: [x], cap").replace(
        "name: pub", "name: pub\n    tenants: [y]"
    )
    assert "none of the tenants" in refused(tmp_path, text)[0]
    dear = GOOD.replace("model: m, cap", "model: m, price: {output: 9}, cap")
    dear = dear.replace("name: pub", "name: pub\n    cost_cap_micro_usd: 5")
    assert "cost cap" in refused(tmp_path, dear)[0]


def test_a_model_may_lead_to_another(tmp_path) -> None:
    path = tmp_path / "router.yaml"
    path.write_text(GOOD + "  - {name: more, chain: [pub]}\n")
    assert [m.name for m in read(path).catalog.models] == ["pub", "more"]


@pytest.mark.parametrize("text", ["", "[]", "a: [", "deployments: {}\nmodels: []", "\x00", "- 1", "deployments: 1"])
def test_what_is_no_routing_file_is_refused_with_a_line(tmp_path, text) -> None:
    assert all(p.split(":")[0].isdigit() for p in refused(tmp_path, text))


def test_a_calibration_that_cannot_be_read_is_refused_at_its_line(tmp_path) -> None:
    text = GOOD + "    cascade: {calibration: c.json}\n"
    assert refused(tmp_path, text)[0].startswith("10:")
    (tmp_path / "c.json").write_text('{"version": 1, "confidence_threshold": 3}')
    assert "c.json" in refused(tmp_path, text)[0]
    (tmp_path / "c.json").write_text('{"confidence": {"bias": 0, "weights": {}, "scales": {"a": 0}}}')
    assert "above 0" in refused(tmp_path, text)[0]
    (tmp_path / "c.json").write_text("{}")
    assert set(read(tmp_path / "router.yaml").calibrations) == {"pub"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab:-", max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "chain", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(deployments=VALUES, models=VALUES)
def test_nothing_makes_reading_fail_otherwise(tmp_path_factory, deployments, models) -> None:
    import yaml  # noqa: PLC0415 - next to its one use

    path = tmp_path_factory.mktemp("fuzz") / "router.yaml"
    path.write_text(yaml.safe_dump({"deployments": deployments, "models": models}))
    with pytest.raises(FileErrors):
        read(path)
