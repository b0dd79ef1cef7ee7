"""collected.json: a second reader opens only what has changed, and says all that a full read would."""

import json
import os

import pytest

from moe_jax import files
from moe_jax.cli import collect, status
from moe_jax.config.identity import trunk_key
from moe_jax.files import json_objects
from moe_jax.sweep import jobs, known_results
from moe_jax.sweep.evaluation_record import EvaluationRecord, Kind
from moe_jax.sweep.snapshot import take_snapshot
from tests import synthetic_sweep as synthetic

SMALL = synthetic.cells(widths=[16, 32], tokens=[96_000], granularities=[1, 2])


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A collected sweep of four finished runs, whose files count as settled at once."""
    monkeypatch.setattr(known_results, "_UNSETTLED_NS", 0)
    work, planned = synthetic.make(tmp_path / "w", SMALL)
    for run in planned:
        synthetic.finish(work, run)
    assert run_collect(work) == 0
    return work, planned


@pytest.fixture
def opened(monkeypatch):
    """The names of the runs' files that are read, as runs/<name>/<file>."""
    seen, read = [], json_objects.read_file

    def noted(path):
        seen.append("/".join(path.parts[-3:]))
        return read(path)

    monkeypatch.setattr(json_objects, "read_file", noted)
    return seen


def run_collect(work):
    return collect.main(["--workdir", str(work.path)])


def results_of(opened):
    return sorted(path for path in opened if path.endswith(("result.json", "run.json")))


def of_run(run):
    return [f"runs/{run.name}/result.json", f"runs/{run.name}/run.json"]


def csv_of_a_full_read(work):
    """results.csv as it is written where nothing is known."""
    (work.path / "collected.json").unlink()
    (work.path / "results.csv").unlink()
    run_collect(work)
    return (work.path / "results.csv").read_bytes()


def test_only_what_changed_is_read(sweep, opened):
    work, planned = sweep
    assert run_collect(work) == 0 and results_of(opened) == []
    synthetic.finish(work, planned[1], synthetic.result_of(planned[1], eval_loss=2.5))
    opened.clear()
    assert run_collect(work) == 0
    assert results_of(opened) == of_run(planned[1])
    again = (work.path / "results.csv").read_bytes()
    assert b",2.5," in again and again == csv_of_a_full_read(work)


def test_status_takes_what_is_known_and_shows_the_same(sweep, opened):
    work, _ = sweep
    known = status.to_json(take_snapshot(work))
    assert results_of(opened) == []
    (work.path / "collected.json").unlink()
    full = status.to_json(take_snapshot(work))
    assert len(results_of(opened)) == 4
    assert {**known, "time": 0} == {**full, "time": 0}


@pytest.mark.parametrize("name", ["result.json", "run.json"])
def test_a_byte_that_was_changed_in_place_is_noticed(sweep, capsys, name):
    """Of the same size and inode, with the old time of writing: the time of the change shows it."""
    work, planned = sweep
    path = work.run_dir(planned[2].name).path / name
    before = os.stat(path)
    with open(path, "r+b") as f:
        f.seek(20)
        f.write(b"\x00")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(path)
    assert (after.st_size, after.st_ino, after.st_mtime_ns) == (before.st_size, before.st_ino, before.st_mtime_ns)
    if name == "result.json":
        assert take_snapshot(work).totals == {"done": 3, "damaged": 1}
    assert run_collect(work) == 1
    assert f"left out: {planned[2].name} (damaged): {path}: is damaged" in capsys.readouterr().out


def test_evaluations_are_noticed_when_they_come_change_and_go(sweep, opened):
    work, planned = sweep
    folder, plain = work.run_dir(planned[1].name), (work.path / "results.csv").read_bytes()

    def evaluation(loss):
        return EvaluationRecord(
            name=folder.name, kind=Kind.STORE, of="code", step=planned[1].config.steps, tokens=planned[1].counts.tokens,
            values={"eval_loss": loss, "bits_per_byte": 1.5}, about={},
        )  # fmt: skip

    for loss in (2.25, 2.75):
        path = folder.write_evaluation(evaluation(loss))
        opened.clear()
        assert run_collect(work) == 0 and results_of(opened) == of_run(planned[1])
        again = (work.path / "results.csv").read_bytes()
        assert f",1.5,{loss}\n".encode() in again
        opened.clear()
        assert run_collect(work) == 0 and results_of(opened) == [] and "store-code.json" not in str(opened)
        assert (work.path / "results.csv").read_bytes() == again == csv_of_a_full_read(work)
    with open(path, "r+b") as f:  # in place: of the same size and inode
        f.seek(20)
        f.write(b"\x00")
    assert run_collect(work) == 1
    path.unlink()
    assert run_collect(work) == 0 and (work.path / "results.csv").read_bytes() == plain


def test_an_evaluation_of_an_earlier_checkpoint_has_no_column(sweep):
    work, planned = sweep
    folder, plain = work.run_dir(planned[1].name), (work.path / "results.csv").read_bytes()
    early = {"name": folder.name, "kind": Kind.STORE, "of": "code", "values": {"eval_loss": 9.0}, "about": {}}
    folder.write_evaluation(EvaluationRecord(**early, step=3, tokens=3 * planned[1].config.batch_tokens))
    assert run_collect(work) == 0 and (work.path / "results.csv").read_bytes() == plain


def test_an_evaluation_cannot_take_a_column_of_the_result(sweep, capsys):
    work, planned = sweep
    folder = work.run_dir(planned[1].name)
    folder.write_evaluation(
        EvaluationRecord(
            name=folder.name, kind=Kind.STORE, of="capacity", step=3, tokens=3, values={"eval_loss": 9.0}, about={}
        )
    )
    assert run_collect(work) == 1
    assert "its evaluation store-capacity would be the column eval_loss_capacity" in capsys.readouterr().out


def test_a_result_that_is_gone_has_no_row(sweep, capsys):
    work, planned = sweep
    work.run_dir(planned[0].name).result_path.unlink()
    assert run_collect(work) == 0
    assert "3 runs" in capsys.readouterr().out
    assert planned[0].name not in json.loads((work.path / "collected.json").read_text())["runs"]


def edited(change):
    def damage(path):
        values = files.read_sealed(path)
        change(values["runs"])
        files.write_sealed(path, values)

    return damage


DAMAGE = {
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "another loss, unsealed": lambda path: path.write_text(path.read_text().replace('"eval_loss": ', '"eval_loss": 1')),
    "a list": lambda path: files.write_sealed(path, {"runs": []}),
    "no entries": edited(lambda runs: runs.update(dict.fromkeys(runs, 3))),
    "empty results": edited(lambda runs: [entry.update(result={}) for entry in runs.values()]),
    "no results": edited(lambda runs: [entry.pop("result") for entry in runs.values()]),
    "other runs' results": edited(lambda runs: [e["result"].update(name="n1k-s0") for e in runs.values()]),
    "results of another length": edited(lambda runs: [e["result"].update(tokens=512) for e in runs.values()]),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


def test_a_damaged_memory_is_not_believed(sweep):
    work, _ = sweep
    before, memory = (work.path / "results.csv").read_bytes(), files.read_sealed(work.path / "collected.json")
    for how, damage in DAMAGE.items():
        damage(work.path / "collected.json")
        (work.path / "results.csv").unlink()
        assert run_collect(work) == 0
        assert (work.path / "results.csv").read_bytes() == before, how
        if how != "a folder":
            assert files.read_sealed(work.path / "collected.json") == memory, how


def test_what_changed_just_before_it_was_read_is_read_again(tmp_path, opened):
    """A second change within one tick of the file system's clock would show the same times."""
    work, planned = synthetic.make(tmp_path / "w", SMALL[:1])
    synthetic.finish(work, planned[0])
    run_collect(work)
    opened.clear()
    run_collect(work)
    assert results_of(opened) == of_run(planned[0])


def test_the_jobs_of_a_sweep_are_grouped_once(tmp_path, monkeypatch):
    """One key a run, however many trunks there are: each costs the JSON of a whole config."""
    wsd = {"optim.schedule": "wsd", "optim.warmup_tokens": 2048, "optim.warmup_fraction": None}
    cells = [
        {**wsd, "optim.decay_fraction": 0.2, "train.tokens": D, "seed": seed}
        for seed in range(3)
        for D in (96_000, 192_000)
    ]
    work, planned = synthetic.make(tmp_path / "w", cells)
    asked = []
    monkeypatch.setattr(jobs.identity, "trunk_key", lambda *config: asked.append(config) or trunk_key(*config))
    found = jobs.jobs_of(planned)
    assert sum(job.is_trunk for job in found) == 3 and len(asked) == len(planned)
    asked.clear()
    take_snapshot(work)
    assert len(asked) == len(planned)
