"""The verdict on one replica."""

from mesh.control.core.judge import Judge
from mesh.control.core.model import Health, Verdict


def judged() -> tuple[Judge, list[Verdict]]:
    verdicts: list[Verdict] = []
    return Judge(verdicts.append), verdicts


def healths(verdicts: list[Verdict]) -> list[Health]:
    return [v.health for v in verdicts]


def test_a_life_from_start_to_death() -> None:
    judge, verdicts = judged()
    judge.told(serving=False)
    judge.told(serving=True)
    judge.answered(serving=True)
    judge.told(serving=False)
    judge.lost()
    assert healths(verdicts) == [Health.UNKNOWN, Health.HEALTHY, Health.DRAINING, Health.UNHEALTHY]
    judge.told(serving=False)
    assert verdicts[-1] == Verdict(Health.UNKNOWN, "not ready yet")


def test_an_older_answer_does_not_undo_what_the_stream_said() -> None:
    judge, verdicts = judged()
    judge.told(serving=True)
    judge.told(serving=False)
    judge.answered(serving=True)
    assert healths(verdicts) == [Health.HEALTHY, Health.DRAINING]


def test_silence_takes_a_replica_out_and_its_next_answer_brings_it_back() -> None:
    judge, verdicts = judged()
    judge.told(serving=True)
    judge.silent("no answer within 1 s")
    judge.silent("no answer within 1 s")
    judge.answered(serving=True)
    assert verdicts == [
        Verdict(Health.HEALTHY),
        Verdict(Health.UNHEALTHY, "no answer within 1 s"),
        Verdict(Health.HEALTHY),
    ]


def test_checks_alone_suffice_where_there_is_no_stream() -> None:
    judge, verdicts = judged()
    judge.answered(serving=True)
    judge.answered(serving=False)
    assert healths(verdicts) == [Health.HEALTHY, Health.DRAINING]
