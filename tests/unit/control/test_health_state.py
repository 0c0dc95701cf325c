"""The verdict on one replica."""

from mesh.control.core.health_state import HealthState
from mesh.control.core.model import Health, HealthVerdict


def judged() -> tuple[HealthState, list[HealthVerdict]]:
    verdicts: list[HealthVerdict] = []
    return HealthState(verdicts.append), verdicts


def healths(verdicts: list[HealthVerdict]) -> list[Health]:
    return [v.health for v in verdicts]


def test_a_life_from_start_to_death() -> None:
    health_state, verdicts = judged()
    health_state.told(serving=False)
    health_state.told(serving=True)
    health_state.answered(serving=True)
    health_state.told(serving=False)
    health_state.lost()
    assert healths(verdicts) == [Health.UNKNOWN, Health.HEALTHY, Health.DRAINING, Health.UNHEALTHY]
    health_state.told(serving=False)
    assert verdicts[-1] == HealthVerdict(Health.UNKNOWN, "not ready yet")


def test_an_older_answer_does_not_undo_what_the_stream_said() -> None:
    health_state, verdicts = judged()
    health_state.told(serving=True)
    health_state.told(serving=False)
    health_state.answered(serving=True)
    assert healths(verdicts) == [Health.HEALTHY, Health.DRAINING]


def test_silence_takes_a_replica_out_and_its_next_answer_brings_it_back() -> None:
    health_state, verdicts = judged()
    health_state.told(serving=True)
    health_state.silent("no answer within 1 s")
    health_state.silent("no answer within 1 s")
    health_state.answered(serving=True)
    assert verdicts == [
        HealthVerdict(Health.HEALTHY),
        HealthVerdict(Health.UNHEALTHY, "no answer within 1 s"),
        HealthVerdict(Health.HEALTHY),
    ]


def test_checks_alone_suffice_where_there_is_no_stream() -> None:
    health_state, verdicts = judged()
    health_state.answered(serving=True)
    health_state.answered(serving=False)
    assert healths(verdicts) == [Health.HEALTHY, Health.DRAINING]
