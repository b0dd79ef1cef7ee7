"""Which jobs submit gives to a launcher again, and which never, as grids grow, submitters die and runs begin anew."""

import dataclasses
import os
import threading

import pytest

from moe_jax.config import config_file
from moe_jax.errors import BAD_INPUT, DONE, FAILED, STOPPED, UserError
from moe_jax.sweep import from_config, jobs, submission_records
from moe_jax.sweep.launchers import local_restarts
from moe_jax.sweep.launchers.remote import RemoteLauncher
from moe_jax.sweep.select_jobs import LauncherView, RetryRequest, select_jobs
from moe_jax.sweep.submission_records import SubmissionRecords
from moe_jax.sweep.workdir import Workdir
from tests import synthetic_sweep as synthetic
from tests.data_stores import contents
from tests.hand_edits import change
from tests.submit_verb import QUEUES, XPK, flag, names, runs_of


def test_finished_runs_are_left_alone(submit, capsys):
    submit(*XPK, "--yes")
    work, runs = Workdir(str(submit.workdir)), runs_of(submit)
    for path in (submit.workdir / "submission").iterdir():
        path.unlink()  # as if none had been submitted
    synthetic.finish(work, runs[0])
    synthetic.finish(work, runs[1], synthetic.diverged_result_of(runs[1], 2))
    synthetic.begin(work, runs[2], step=1, loss=3.0)
    capsys.readouterr()
    assert submit(*XPK, "--yes", "--retry_failed") == DONE
    assert "left alone: 1 done, 1 diverged, 1 running" in capsys.readouterr().out
    assert sorted(names(submit.xpk)[8:]) == sorted(names(submit.xpk)[3:8])


def test_what_failed_is_submitted_again_only_when_asked(submit, capsys):
    submit(*XPK, "--yes")
    work, runs = Workdir(str(submit.workdir)), runs_of(submit)
    folder, attempt = synthetic.begin(work, runs[4])
    folder.end_attempt(attempt, 2, "the token store is gone")
    synthetic.set_back(synthetic.begin(work, runs[5], step=1, loss=3.0)[0], 3600)
    capsys.readouterr()
    assert submit(*XPK, "--yes") == DONE
    out = capsys.readouterr().out
    assert f"{runs[4].name}: failed (the token store is gone)" in out and "--retry_failed" in out
    assert f"{runs[5].name}: stale (no heartbeat)" in out
    assert len(submit.xpk.calls) == 8
    submit(*XPK, "--yes", "--retry_failed")
    assert names(submit.xpk)[8:] == [f"{n}-r1" for n in names(submit.xpk)[4:6]]
    submit(*XPK, "--yes", f"--retry={runs[4].name}")
    assert names(submit.xpk)[10:] == [f"{names(submit.xpk)[4]}-r2"]
    assert submit(*XPK, "--yes", "--retry=nobody") == BAD_INPUT
    synthetic.finish(work, runs[0])
    assert submit(*XPK, "--yes", f"--retry={runs[0].name}") == BAD_INPUT


def test_two_submitters_at_once_submit_each_job_once(submit):
    submit.xpk.answers(seconds=0.05)
    submit(*XPK, "--dry_run")
    start = threading.Barrier(2)
    codes = []

    def one():
        start.wait()
        codes.append(submit(*XPK, "--yes"))

    threads = [threading.Thread(target=one) for _ in range(2)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert codes == [DONE, DONE]
    assert sorted(names(submit.xpk)) == sorted(set(names(submit.xpk))) and len(names(submit.xpk)) == 8


def test_a_job_whose_submitter_died_is_taken_over_under_its_name(submit, monkeypatch):
    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(RemoteLauncher, "submit_batch", dies)
        assert submit(*XPK, "--yes") == STOPPED
    assert submit(*XPK, "--yes") == DONE
    first = names(submit.xpk)[0]
    assert len(names(submit.xpk)) == 7  # this process lives, so perhaps it is about to submit
    monkeypatch.setattr(submission_records, "_is_alive", lambda pid: False)
    assert submit(*XPK, "--yes") == DONE
    assert len(set(names(submit.xpk))) == 8 and first == names(submit.xpk)[0]
    assert not any(n.endswith("-r1") for n in names(submit.xpk))


def test_a_late_answer_takes_no_job_from_another_submitter(tmp_path):
    work, _ = synthetic.make(tmp_path / "w")
    a, b = SubmissionRecords(work), SubmissionRecords(work)
    selection = select_jobs(work, work.existing_manifest(), {}, RetryRequest(), LauncherView(None))
    assert a.claim(selection.submissions[0], "xpk:p/z/c", "x")
    taken = dataclasses.replace(selection.submissions[0], taken_over=a.newest()[selection.submissions[0].job.name])
    assert b.claim(taken, "xpk:p/z/c", "x")
    b.confirm(taken, "xpk:p/z/c", "x")
    a.release(selection.submissions[0])
    assert a.newest()[taken.job.name].state == "queued"


GROWING = """
from configs import smoke

def get_config(arg=None):
    config = smoke.get_config("tiny")
    config.sweep.pack, config.train.tokens = 3, 2048
    return config

def get_grid(config, arg=None):
    return [{"seed": seed} for seed in range(int(arg))]
"""


def test_a_run_that_is_queued_is_not_submitted_again_in_a_pack_of_a_grown_grid(submit, capsys, tmp_path):
    (tmp_path / "growing.py").write_text(GROWING)
    slice = [*XPK, "--tpu_type=v6e-1", "--yes"]

    def grown(n):
        submit.config = f"--config={tmp_path / 'growing.py'}:{n}"
        assert submit(*slice) == DONE
        return [flag(call, "--command").split()[-1] for call in submit.xpk.calls]

    (first,) = grown(1)
    assert first.startswith("--run=")
    flags = grown(3)
    assert len(flags) == 3 and all(f.startswith("--run=") for f in flags) and len(set(flags)) == 3
    assert "left alone: 1 queued" in capsys.readouterr().out
    assert grown(3) == flags and "there is nothing to submit" in capsys.readouterr().out
    assert len(grown(6)) == 4  # the second pack is whole


def grown_by_one(submit, tmp_path):
    """(flags, runs): a pack of three seeds, submitted one by one: the grid had only the first before."""
    (tmp_path / "growing.py").write_text(GROWING)
    flags = [*XPK, "--tpu_type=v6e-1", "--yes"]
    for n in (1, 3):
        submit.config = f"--config={tmp_path / 'growing.py'}:{n}"
        submit(*flags)
    assert len(submit.xpk.calls) == 3
    return flags, runs_of(submit)


def test_of_runs_that_were_submitted_apart_the_one_that_failed_is_submitted_again(submit, capsys, tmp_path):
    flags, runs = grown_by_one(submit, tmp_path)
    synthetic.begin(Workdir(str(submit.workdir)), runs[0], step=1, loss=3.0)
    folder, attempt = synthetic.begin(Workdir(str(submit.workdir)), runs[1])
    folder.end_attempt(attempt, 2, "no store")
    capsys.readouterr()
    submit(*flags)
    out = capsys.readouterr().out
    assert f"{runs[1].name}: failed (no store); submitted before as {names(submit.xpk)[1]}, --retry_failed" in out
    assert "left alone: 1 running, 1 queued" in out and len(submit.xpk.calls) == 3
    submit(*flags, "--retry_failed")
    assert names(submit.xpk)[3:] == [f"{names(submit.xpk)[1]}-r1"]
    submit(*flags, f"--retry={runs[2].name}")
    assert names(submit.xpk)[4:] == [f"{names(submit.xpk)[2]}-r1"]


def test_a_run_submitted_apart_whose_submitter_died_is_taken_over(submit, tmp_path):
    flags, _ = grown_by_one(submit, tmp_path)
    path = submit.workdir / "submission" / f"{names(submit.xpk)[1]}.json"
    change(path, state="submitting", time=0.0)
    assert submit(*flags) == DONE
    assert names(submit.xpk)[3:] == [names(submit.xpk)[1]]
    assert submit(*flags) == DONE and len(submit.xpk.calls) == 4


def test_branches_of_an_extended_grid_are_submitted_when_the_first_are_done(tmp_path):
    wsd = {"schedule": "wsd", "decay_fraction": 0.25, "warmup_fraction": None, "warmup_tokens": 4096}
    wsd = {f"optim.{field}": value for field, value in wsd.items()}
    cells = [{"train.tokens": tokens} | wsd for tokens in (384_000, 192_000)]
    work, planned = synthetic.make(tmp_path / "w", cells)

    def chosen():
        manifest, records = work.existing_manifest(), SubmissionRecords(work).newest()
        selection = select_jobs(work, manifest, records, RetryRequest(), LauncherView(None))
        for submission in selection.submissions:
            SubmissionRecords(work).claim(submission, "xpk", submission.id)
            SubmissionRecords(work).confirm(submission, "xpk", submission.id)
        return [submission.id for submission in selection.submissions]

    (first,) = chosen()
    extended, _ = synthetic.make(tmp_path / "w", [*cells, cells[0] | {"train.tokens": 768_000}])
    assert chosen() == []
    for run in planned:
        synthetic.finish(work, run)
    assert chosen() == [f"{first}-r1"]
    assert len(extended.existing_manifest().runs) == 3


def test_what_is_queued_keeps_its_job(submit, capsys, tmp_path):
    """Else its pod would find no such pack or trunk, and its runs would be queued for ever."""
    (tmp_path / "growing.py").write_text(GROWING)
    submit.config = f"--config={tmp_path / 'growing.py'}:3"
    slice = [*XPK, "--tpu_type=v6e-1", "--yes"]
    submit(*slice)
    (pack,) = names(submit.xpk)
    before = contents(submit.workdir)
    for flags in (["--config.sweep.pack=2"], ["--config.sweep.pack=1"]):
        capsys.readouterr()
        assert submit(*slice, *flags) == BAD_INPUT
        assert f"submitted as {pack}, is to train it, and would not with this config" in capsys.readouterr().err
    assert contents(submit.workdir) == before
    assert submit(*slice, "--config.mesh.data=1") == DONE  # all of them on another mesh
    file = config_file.load([submit.config, submit.store, "--config.mesh.expert=1"])  # one of them
    with pytest.raises(UserError, match=rf"submitted as {pack}, is to train it, and would not with this config"):
        from_config.enter(file, Workdir(str(submit.workdir)), whole_grid=False)
    for run in runs_of(submit):
        assert submit(*slice, "--config.sweep.pack=1") == BAD_INPUT
        synthetic.finish(Workdir(str(submit.workdir)), run)
    assert submit(*slice, "--config.sweep.pack=1") == DONE
    assert len(submit.xpk.calls) == 1


def test_a_submitted_trunk_keeps_its_branches(submit):
    wsd = ["schedule='wsd'", "warmup_fraction=None", "warmup_tokens=512", "decay_fraction=0.25"]
    flags = [f"--config.optim.{field}" for field in wsd]
    assert submit(*XPK, "--yes", *flags) == DONE
    work, run = Workdir(str(submit.workdir)), runs_of(submit)[0]

    def join(*others):
        cell = [f"--config.{field}={value!r}" for field, value in run.overrides.items()]
        file = config_file.load([submit.config, submit.store, *flags, *cell, *others])
        return from_config.enter(file, work, whole_grid=False)

    def names_of_jobs():
        return [[job.name for job in jobs.jobs_of(runs_of(submit), apart=apart)] for apart in (True, False)]

    before = names_of_jobs()
    for others in ((), ("--config.mesh.expert=1",), ("--config.checkpoint.keep=5",)):  # one branch, in another way
        join(*others)
        assert names_of_jobs() == before


def test_a_finished_run_is_trained_again_when_asked(submit, capsys):
    submit(*XPK, "--yes")
    work, (run, other, *_) = Workdir(str(submit.workdir)), runs_of(submit)
    again = [*XPK, "--yes", f"--rerun={run.name}"]
    assert submit(*again) == BAD_INPUT
    assert f"--rerun={run.name}: is queued; wait for it" in capsys.readouterr().err
    assert submit(*XPK, "--yes", "--rerun=nobody") == BAD_INPUT
    first = synthetic.finish(work, run).result_path.read_bytes()
    before = contents(submit.workdir)
    assert submit(*XPK, "--dry_run", f"--rerun={run.name}") == DONE
    out = capsys.readouterr().out
    assert f"--run={run.name}" in out and f"# {work.run_dir(run.name).path} must be moved aside before" in out
    assert contents(submit.workdir) == before
    submit.xpk.answers("quota exceeded\n", code=5)
    assert submit(*again) == FAILED
    assert work.run_dir(run.name).result_path.read_bytes() == first and not work.asides()
    submit.xpk.answers()
    calls = len(submit.xpk.calls)
    assert submit(*again) == DONE
    assert names(submit.xpk)[calls:] == [f"{names(submit.xpk)[0]}-r1"]
    (aside,) = (submit.workdir / "aside").iterdir()
    assert aside.name.startswith(run.name) and (aside / "result.json").read_bytes() == first
    assert not (submit.workdir / "runs" / run.name).exists()
    for flags in (again, [*XPK, "--yes"], [*XPK, "--yes", "--retry_failed"]):  # it is queued now
        assert submit(*flags) == DONE and len(submit.xpk.calls) == calls + 1
    synthetic.finish(work, run)
    synthetic.finish(work, other)
    submit(*again, f"--rerun={other.name}")
    assert names(submit.xpk)[calls + 1 :] == [f"{names(submit.xpk)[0]}-r2", f"{names(submit.xpk)[1]}-r1"]


def test_a_failed_run_may_begin_again(submit):
    submit(*XPK, "--yes")
    work, run = Workdir(str(submit.workdir)), runs_of(submit)[0]
    folder, attempt = synthetic.begin(work, run)
    folder.end_attempt(attempt, 2, "damaged")
    assert submit(*XPK, "--yes", f"--rerun={run.name}") == DONE
    assert [*work.asides()] == [run.name] and not folder.path.exists() and len(submit.xpk.calls) == 9


@pytest.mark.parametrize("then", ["xpk", "local"])
def test_a_rerun_that_was_stopped_goes_on_by_the_same_command(submit, monkeypatch, then):
    """Stopped when the result was set aside and nobody has it yet; a cluster has trained it before."""
    submit(*XPK, "--yes")
    work, run = Workdir(str(submit.workdir)), runs_of(submit)[0]
    for each in runs_of(submit):
        synthetic.finish(work, each)
    again = [f"--rerun={run.name}", "--yes", *(XPK if then == "xpk" else ["--launcher=local"])]
    stops = {"xpk": (RemoteLauncher, "submit_batch"), "local": (local_restarts, "train_with_restarts")}[then]

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(*stops, stop)
        assert submit(*again) == STOPPED
    assert [*work.asides()] == [run.name] and work.run_dir(run.name).result() is None
    if then == "local":
        given = []

        def train(work, runs, *_):
            given.extend(r.name for r in runs)
            return []

        monkeypatch.setattr(local_restarts, "train_with_restarts", train)
        assert submit(*again) == DONE and given == [run.name]
    else:
        monkeypatch.setattr(submission_records, "_is_alive", lambda pid: False)
        assert submit(*again) == DONE and names(submit.xpk)[8:] == [f"{names(submit.xpk)[0]}-r1"]
    assert len(list((submit.workdir / "aside").iterdir())) == 1
    if then == "local":  # and a cluster may have it instead
        assert submit(*XPK, "--yes") == DONE and names(submit.xpk)[8:] == [f"{names(submit.xpk)[0]}-r1"]


def test_what_cannot_be_submitted_moves_nothing(submit, monkeypatch):
    """A list that is too long for a slice's metadata; a run that is trained on this machine now."""
    submit(*XPK, "--yes")
    work, runs = Workdir(str(submit.workdir)), runs_of(submit)
    for run in runs:
        synthetic.finish(work, run)
    lock = work.run_dir(runs[5].name).lock(0.0)
    before = contents(submit.workdir)
    everything = [f"--rerun={run.name}" for run in runs]
    with monkeypatch.context() as m:
        m.setattr("moe_jax.sweep.launchers.queued_resources._MOST_METADATA", 100)
        assert submit(*QUEUES, "--yes", *everything) == BAD_INPUT
    assert contents(submit.workdir) == before
    assert submit(*QUEUES, "--yes", *everything) == FAILED
    os.close(lock)
    assert len(work.existing_manifest().runs) == sum(work.run_dir(r.name).result() is not None for r in runs)
    assert contents(submit.workdir / "submission") == {
        k.partition("/")[2]: v for k, v in before.items() if k.startswith("submission/")
    }


def test_a_damaged_result_is_named_where_its_run_is_submitted(submit, capsys):
    submit(*XPK, "--yes")
    work, run = Workdir(str(submit.workdir)), runs_of(submit)[0]
    for path in (submit.workdir / "submission").iterdir():
        path.unlink()  # as if none had been submitted
    synthetic.finish(work, run).result_path.write_text('{"name": "torn')
    capsys.readouterr()
    assert submit(*XPK, "--yes") == DONE
    said = capsys.readouterr().out
    assert f"{run.name} is damaged and submitted again: {work.run_dir(run.name).result_path}" in said
    assert len(names(submit.xpk)) == 16
