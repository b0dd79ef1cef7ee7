"""Which jobs submit gives to a launcher again, and which never, as grids grow, submitters die and runs begin anew."""

import dataclasses
import json
import threading

import pytest

from moe_jax import (
    choosing,
    configfile,
    files,
    planning,
    submission,
)
from moe_jax.errors import BAD_INPUT, DONE, FAILED, STOPPED, UserError
from moe_jax.launchers import remote, rounds
from moe_jax.submission import Submission
from moe_jax.workdir import Workdir
from tests import synthetic_sweep as synthetic
from tests.data_stores import contents
from tests.submitting import QUEUES, XPK, flag, names, runs_of


def test_finished_runs_are_left_alone(place, capsys):
    place(*XPK, "--yes")
    work, runs = Workdir(str(place.workdir)), runs_of(place)
    for path in (place.workdir / "submission").iterdir():
        path.unlink()  # as if none had been submitted
    synthetic.finish(work, runs[0])
    synthetic.finish(work, runs[1], synthetic.diverged_result_of(runs[1], 2))
    synthetic.begin(work, runs[2], step=1, loss=3.0)
    capsys.readouterr()
    assert place(*XPK, "--yes", "--retry_failed") == DONE
    assert "left alone: 1 done, 1 diverged, 1 running" in capsys.readouterr().out
    assert sorted(names(place.xpk)[8:]) == sorted(names(place.xpk)[3:8])


def test_what_failed_is_submitted_again_only_when_asked(place, capsys):
    place(*XPK, "--yes")
    work, runs = Workdir(str(place.workdir)), runs_of(place)
    folder, attempt = synthetic.begin(work, runs[4])
    folder.end_attempt(attempt, 2, "the token store is gone")
    synthetic.set_back(synthetic.begin(work, runs[5], step=1, loss=3.0)[0], 3600)
    capsys.readouterr()
    assert place(*XPK, "--yes") == DONE
    out = capsys.readouterr().out
    assert f"{runs[4].name}: failed (the token store is gone)" in out and "--retry_failed" in out
    assert f"{runs[5].name}: stale (no sign of life)" in out
    assert len(place.xpk.calls) == 8
    place(*XPK, "--yes", "--retry_failed")
    assert names(place.xpk)[8:] == [f"{n}-r1" for n in names(place.xpk)[4:6]]
    place(*XPK, "--yes", f"--retry={runs[4].name}")
    assert names(place.xpk)[10:] == [f"{names(place.xpk)[4]}-r2"]
    assert place(*XPK, "--yes", "--retry=nobody") == BAD_INPUT
    synthetic.finish(work, runs[0])
    assert place(*XPK, "--yes", f"--retry={runs[0].name}") == BAD_INPUT


def test_two_submitters_at_once_submit_each_job_once(place):
    place.xpk.answers(seconds=0.05)
    place(*XPK, "--dry_run")
    start = threading.Barrier(2)
    codes = []

    def one():
        start.wait()
        codes.append(place(*XPK, "--yes"))

    threads = [threading.Thread(target=one) for _ in range(2)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert codes == [DONE, DONE]
    assert sorted(names(place.xpk)) == sorted(set(names(place.xpk))) and len(names(place.xpk)) == 8


def test_a_job_whose_submitter_died_is_taken_over_under_its_name(place, monkeypatch):
    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(remote, "launch", dies)
        assert place(*XPK, "--yes") == STOPPED
    assert place(*XPK, "--yes") == DONE
    first = names(place.xpk)[0]
    assert len(names(place.xpk)) == 7  # this process lives, so perhaps it is about to submit
    monkeypatch.setattr(submission, "_is_alive", lambda pid: False)
    assert place(*XPK, "--yes") == DONE
    assert len(set(names(place.xpk))) == 8 and first == names(place.xpk)[0]
    assert not any(n.endswith("-r1") for n in names(place.xpk))


def test_a_late_answer_takes_no_job_from_another_submitter(tmp_path):
    work, _ = synthetic.make(tmp_path / "w")
    a, b = Submission(work), Submission(work)
    choice = choosing.choose(work, work.existing_manifest(), {}, choosing.Again(), choosing.Here(None))
    assert a.claim(choice.tickets[0], "xpk:p/z/c", "x")
    taken = dataclasses.replace(choice.tickets[0], taken_over=a.newest()[choice.tickets[0].job.name])
    assert b.claim(taken, "xpk:p/z/c", "x")
    b.confirm(taken, "xpk:p/z/c", "x")
    a.release(choice.tickets[0])
    assert a.newest()[taken.job.name].state == "queued"


GROWING = """
from configs import smoke

def get_config(arg=None):
    config = smoke.get_config("tiny")
    config.sweep.pack, config.train.tokens = 3, 2048
    return config

def get_grid(arg=None):
    return [{"seed": seed} for seed in range(int(arg))]
"""


def test_a_run_that_is_queued_is_not_submitted_again_in_a_pack_of_a_grown_grid(place, capsys, tmp_path):
    (tmp_path / "growing.py").write_text(GROWING)
    slice = [*XPK, "--tpu_type=v6e-1", "--yes"]

    def grown(n):
        place.config = f"--config={tmp_path / 'growing.py'}:{n}"
        assert place(*slice) == DONE
        return [flag(call, "--command").split()[-1] for call in place.xpk.calls]

    (first,) = grown(1)
    assert first.startswith("--run=")
    flags = grown(3)
    assert len(flags) == 3 and all(f.startswith("--run=") for f in flags) and len(set(flags)) == 3
    assert "left alone: 1 queued" in capsys.readouterr().out
    assert grown(3) == flags and "there is nothing to submit" in capsys.readouterr().out
    assert len(grown(6)) == 4  # the second pack is whole


def grown_by_one(place, tmp_path):
    """(flags, runs): a pack of three seeds, submitted one by one: the grid had only the first before."""
    (tmp_path / "growing.py").write_text(GROWING)
    flags = [*XPK, "--tpu_type=v6e-1", "--yes"]
    for n in (1, 3):
        place.config = f"--config={tmp_path / 'growing.py'}:{n}"
        place(*flags)
    assert len(place.xpk.calls) == 3
    return flags, runs_of(place)


def test_of_runs_that_were_submitted_apart_the_one_that_failed_is_submitted_again(place, capsys, tmp_path):
    flags, runs = grown_by_one(place, tmp_path)
    synthetic.begin(Workdir(str(place.workdir)), runs[0], step=1, loss=3.0)
    folder, attempt = synthetic.begin(Workdir(str(place.workdir)), runs[1])
    folder.end_attempt(attempt, 2, "no store")
    capsys.readouterr()
    place(*flags)
    out = capsys.readouterr().out
    assert f"{runs[1].name}: failed (no store); submitted before as {names(place.xpk)[1]}, --retry_failed" in out
    assert "left alone: 1 running, 1 queued" in out and len(place.xpk.calls) == 3
    place(*flags, "--retry_failed")
    assert names(place.xpk)[3:] == [f"{names(place.xpk)[1]}-r1"]
    place(*flags, f"--retry={runs[2].name}")
    assert names(place.xpk)[4:] == [f"{names(place.xpk)[2]}-r1"]


def test_a_run_submitted_apart_whose_submitter_died_is_taken_over(place, tmp_path):
    flags, _ = grown_by_one(place, tmp_path)
    path = place.workdir / "submission" / f"{names(place.xpk)[1]}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "submitting", "time": 0.0}))
    assert place(*flags) == DONE
    assert names(place.xpk)[3:] == [names(place.xpk)[1]]
    assert place(*flags) == DONE and len(place.xpk.calls) == 4


def test_branches_of_an_extended_grid_are_submitted_when_the_first_are_done(tmp_path):
    wsd = {"schedule": "wsd", "decay_fraction": 0.25, "warmup_fraction": None, "warmup_tokens": 4096}
    wsd = {f"optim.{field}": value for field, value in wsd.items()}
    cells = [{"train.tokens": tokens} | wsd for tokens in (384_000, 192_000)]
    work, planned = synthetic.make(tmp_path / "w", cells)

    def chosen():
        manifest, records = work.existing_manifest(), Submission(work).newest()
        choice = choosing.choose(work, manifest, records, choosing.Again(), choosing.Here(None))
        for ticket in choice.tickets:
            Submission(work).claim(ticket, "xpk", ticket.id)
            Submission(work).confirm(ticket, "xpk", ticket.id)
        return [ticket.id for ticket in choice.tickets]

    (first,) = chosen()
    extended, _ = synthetic.make(tmp_path / "w", [*cells, cells[0] | {"train.tokens": 768_000}])
    assert chosen() == []
    for run in planned:
        synthetic.finish(work, run)
    assert chosen() == [f"{first}-r1"]
    assert len(extended.existing_manifest().runs) == 3


def test_what_is_queued_keeps_its_job(place, capsys, tmp_path):
    """Else its pod would find no such pack or trunk, and its runs would be queued for ever."""
    (tmp_path / "growing.py").write_text(GROWING)
    place.config = f"--config={tmp_path / 'growing.py'}:3"
    slice = [*XPK, "--tpu_type=v6e-1", "--yes"]
    place(*slice)
    (pack,) = names(place.xpk)
    before = contents(place.workdir)
    for flags in (["--config.sweep.pack=2"], ["--config.sweep.pack=1"]):
        capsys.readouterr()
        assert place(*slice, *flags) == BAD_INPUT
        assert f"submitted as {pack}, is to train it, and would not with this config" in capsys.readouterr().err
    assert contents(place.workdir) == before
    assert place(*slice, "--config.mesh.data=1") == DONE  # all of them on another mesh
    for run in runs_of(place):
        assert place(*slice, "--config.sweep.pack=1") == BAD_INPUT
        synthetic.finish(Workdir(str(place.workdir)), run)
    assert place(*slice, "--config.sweep.pack=1") == DONE
    assert len(place.xpk.calls) == 1


def test_a_submitted_trunk_keeps_its_branches(place):
    wsd = ["schedule='wsd'", "warmup_fraction=None", "warmup_tokens=512", "decay_fraction=0.25"]
    flags = [f"--config.optim.{field}" for field in wsd]
    assert place(*XPK, "--yes", *flags) == DONE
    work, run = Workdir(str(place.workdir)), runs_of(place)[0]

    def join(*others):
        cell = [f"--config.{field}={value!r}" for field, value in run.overrides.items()]
        file = configfile.load([place.config, place.store, *flags, *cell, *others])
        return planning.enter(file, work, whole_grid=False)

    join()
    with pytest.raises(UserError, match=rf"{run.name}: .*, submitted as .*, is to train it, and would not"):
        join("--config.mesh.expert=1")
    for branch in runs_of(place):
        if branch.name.split("-")[::2] == run.name.split("-")[::2]:  # all but D
            synthetic.finish(work, branch)
    join("--config.mesh.expert=1")


def test_a_finished_run_is_trained_again_when_asked(place, capsys):
    place(*XPK, "--yes")
    work, (run, other, *_) = Workdir(str(place.workdir)), runs_of(place)
    again = [*XPK, "--yes", f"--rerun={run.name}"]
    assert place(*again) == BAD_INPUT
    assert f"--rerun={run.name}: is queued; wait for it" in capsys.readouterr().err
    assert place(*XPK, "--yes", "--rerun=nobody") == BAD_INPUT
    first = synthetic.finish(work, run).result_path.read_bytes()
    before = contents(place.workdir)
    assert place(*XPK, "--dry_run", f"--rerun={run.name}") == DONE
    out = capsys.readouterr().out
    assert f"--run={run.name}" in out and f"# {work.run_dir(run.name).path} is moved aside before" in out
    assert contents(place.workdir) == before
    place.xpk.answers("quota exceeded\n", code=5)
    assert place(*again) == FAILED
    assert work.run_dir(run.name).result_path.read_bytes() == first and not work.asides()
    place.xpk.answers()
    calls = len(place.xpk.calls)
    assert place(*again) == DONE
    assert names(place.xpk)[calls:] == [f"{names(place.xpk)[0]}-r1"]
    (aside,) = (place.workdir / "aside").iterdir()
    assert aside.name.startswith(run.name) and (aside / "result.json").read_bytes() == first
    assert not (place.workdir / "runs" / run.name).exists()
    for flags in (again, [*XPK, "--yes"], [*XPK, "--yes", "--retry_failed"]):  # it is queued now
        assert place(*flags) == DONE and len(place.xpk.calls) == calls + 1
    synthetic.finish(work, run)
    synthetic.finish(work, other)
    place(*again, f"--rerun={other.name}")
    assert names(place.xpk)[calls + 1 :] == [f"{names(place.xpk)[0]}-r2", f"{names(place.xpk)[1]}-r1"]


def test_a_failed_run_may_begin_again(place):
    place(*XPK, "--yes")
    work, run = Workdir(str(place.workdir)), runs_of(place)[0]
    folder, attempt = synthetic.begin(work, run)
    folder.end_attempt(attempt, 2, "damaged")
    assert place(*XPK, "--yes", f"--rerun={run.name}") == DONE
    assert [*work.asides()] == [run.name] and not folder.path.exists() and len(place.xpk.calls) == 9


@pytest.mark.parametrize("then", ["xpk", "local"])
def test_a_rerun_that_was_stopped_goes_on_by_the_same_command(place, monkeypatch, then):
    """Stopped when the result was set aside and nobody has it yet; a cluster has trained it before."""
    place(*XPK, "--yes")
    work, run = Workdir(str(place.workdir)), runs_of(place)[0]
    for each in runs_of(place):
        synthetic.finish(work, each)
    again = [f"--rerun={run.name}", "--yes", *(XPK if then == "xpk" else ["--launcher=local"])]
    stops = {"xpk": (remote, "launch"), "local": (rounds, "train")}[then]

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(*stops, stop)
        assert place(*again) == STOPPED
    assert [*work.asides()] == [run.name] and work.run_dir(run.name).result() is None
    if then == "local":
        given = []
        monkeypatch.setattr(rounds, "train", lambda work, runs, *_: given.extend(r.name for r in runs) or [])
        assert place(*again) == DONE and given == [run.name]
    else:
        monkeypatch.setattr(submission, "_is_alive", lambda pid: False)
        assert place(*again) == DONE and names(place.xpk)[8:] == [f"{names(place.xpk)[0]}-r1"]
    assert len(list((place.workdir / "aside").iterdir())) == 1
    if then == "local":  # and a cluster may have it instead
        assert place(*XPK, "--yes") == DONE and names(place.xpk)[8:] == [f"{names(place.xpk)[0]}-r1"]


def test_what_cannot_be_submitted_moves_nothing(place, monkeypatch):
    """A list that is too long for a slice's metadata; a run that is trained on this machine now."""
    place(*XPK, "--yes")
    work, runs = Workdir(str(place.workdir)), runs_of(place)
    for run in runs:
        synthetic.finish(work, run)
    lock = work.run_dir(runs[5].name).lock(0.0)
    before = contents(place.workdir)
    everything = [f"--rerun={run.name}" for run in runs]
    with monkeypatch.context() as m:
        m.setattr("moe_jax.launchers.queued_resources._MOST_METADATA", 100)
        assert place(*QUEUES, "--yes", *everything) == BAD_INPUT
    assert contents(place.workdir) == before
    assert place(*QUEUES, "--yes", *everything) == FAILED
    files.os.close(lock)
    assert len(work.existing_manifest().runs) == sum(work.run_dir(r.name).result() is not None for r in runs)
    assert contents(place.workdir / "submission") == {
        k.partition("/")[2]: v for k, v in before.items() if k.startswith("submission/")
    }
