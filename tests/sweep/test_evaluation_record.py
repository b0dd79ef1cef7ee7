"""Evaluations of a run: one file each, read back as written, and refused where they are not what was written."""

import pytest
from etils import epath

from moe_jax import files
from moe_jax.errors import UserError
from moe_jax.sweep.evaluation_record import EvaluationRecord, Kind, check_name
from moe_jax.sweep.rundir import RunDir


def record(kind, of, **values):
    return EvaluationRecord(name="a", kind=kind, of=of, step=3, tokens=96, values=values, about={"path": "s"})


def test_a_file_each_and_columns_by_kind(tmp_path):
    folder = RunDir(epath.Path(tmp_path) / "a")
    assert folder.evaluations() == []
    store, task = record(Kind.STORE, "code", eval_loss=2.5), record(Kind.TASK, "arc_easy", accuracy=0.25)
    assert [folder.write_evaluation(r).name for r in (task, store)] == ["task-arc_easy.json", "store-code.json"]
    assert folder.evaluations() == [store, task]
    assert store.columns() == {"eval_loss_code": 2.5} and task.columns() == {"arc_easy_accuracy": 0.25}


@pytest.mark.parametrize(
    "change", [{"name": "b"}, {"kind": "x"}, {"values": {"A b": 1.0}}, {"values": {"x": "1"}}, {"of": "../x"}]
)
def test_what_is_no_evaluation_of_the_run_is_damaged(tmp_path, change):
    folder = RunDir(epath.Path(tmp_path) / "a")
    path = folder.write_evaluation(record(Kind.STORE, "code", eval_loss=2.5))
    files.write_sealed(path, files.read_sealed(path) | change)
    with pytest.raises(files.DamagedFile, match=r"store-code\.json: is damaged"):
        folder.evaluations()


@pytest.mark.parametrize("name", ["", "A", "a-b", "a,b", "_a", "a" * 65])
def test_names_are_parts_of_columns(name):
    with pytest.raises(UserError):
        check_name(name)
