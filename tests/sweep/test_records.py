"""Records: what is written is read back, and of a damaged file nothing wrong is believed."""

import dataclasses
import json

import pytest

from moe_jax.errors import UserError
from moe_jax.sweep.attempt import Attempt
from moe_jax.sweep.heartbeat import Heartbeat, Phase
from moe_jax.sweep.result import Result
from moe_jax.sweep.run_record import RunRecord
from tests import synthetic_sweep as synthetic

WRONG = (True, -1, [1], {"a": []}, float("nan"), 10**400, float("inf"))  # for any field but exit_code


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    _, (run, *_) = synthetic.make(tmp_path_factory.mktemp("w"), synthetic.cells())
    return run


def through_json(record):
    return json.loads(json.dumps(record.to_json()))


def test_records_are_read_back_as_they_were(run):
    for result in (synthetic.result_of(run), synthetic.diverged_result_of(run, 3)):
        assert Result.from_json(through_json(result), run.name) == result
    rules = {"optim.learning_rate": {"law": "step_law_lr", "source": "step_law_lr.json", "sha256": "0" * 64}}
    for started in (synthetic.run_record_of(run), synthetic.run_record_of(run, rules=rules)):
        assert RunRecord.from_json(through_json(started)) == started
    open_attempt = Attempt(began=1.0, token="")
    for attempt in (open_attempt, open_attempt.as_ended(2.0, -9, "killed")):
        assert Attempt.from_json(through_json(attempt)) == attempt
    for phase in Phase:
        heartbeat = Heartbeat(step=3, steps=7, loss=2.5, phase=phase, attempt=1, times={"train": 0.5}, time=9.0)
        assert Heartbeat.from_json(through_json(heartbeat)) == heartbeat


def test_only_a_diverged_result_has_the_fields_of_one(run):
    done, diverged = synthetic.result_of(run).to_json(), synthetic.diverged_result_of(run, 3).to_json()
    assert [*diverged] == [*done, "diverged_step", "last_good_checkpoint"]


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Result)])
def test_a_result_with_a_wrong_field_is_refused_by_its_name(run, field):
    values = synthetic.diverged_result_of(run, 3).to_json()
    for wrong in WRONG:
        with pytest.raises(UserError, match=f"{field} is "):
            Result.from_json(values | {field: wrong}, run.name)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(RunRecord)])
def test_a_run_record_with_a_wrong_field_is_refused(run, field):
    values = through_json(synthetic.run_record_of(run))
    for wrong in (True, -1, [1], {"a": []}, 10**400):
        with pytest.raises(UserError):
            RunRecord.from_json(values | {field: wrong})
    optional = {"git_commit": None, "rules": None}
    others = {name: value for name, value in values.items() if name not in (field, *optional)} | optional
    with pytest.raises(UserError):
        RunRecord.from_json(others | ({field: 5} if field in optional else {}))


def test_heartbeats_and_attempts_keep_what_is_sound():
    for cls, sound in ((Heartbeat, {"step": 3, "host": "here"}), (Attempt, {"began": 3.0, "token": "t"})):
        for field in dataclasses.fields(cls):
            if field.name in sound:
                continue
            for wrong in WRONG:
                read = cls.from_json(sound | {field.name: wrong})
                assert {name: getattr(read, name) for name in sound} == sound
                if field.name not in ("ended", "exit_code"):
                    assert getattr(read, field.name) == getattr(cls(), field.name)


def test_an_attempt_that_has_ended_nobody_knows_when_has_ended():
    assert Attempt.from_json({"ended": "yesterday"}).ended == 0.0
    assert Attempt.from_json({"began": 1.0}).ended is None


def test_a_heartbeat_in_words():
    assert Heartbeat(phase=Phase.COMPILING).describe() == "compiling" and Heartbeat().describe() == ""
    known = Heartbeat(phase=Phase.TRAINING, loss=2.7134, tokens_per_second=41_200.0, seconds_left=12.0)
    assert known.describe() == "loss 2.713, 41.2k tokens/s, 12 s left"
