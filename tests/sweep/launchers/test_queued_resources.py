"""submit to queued resources: slices that work through lists of jobs; a fake stands for gcloud."""

import json
import re
import shlex
import subprocess

import pytest

from moe_jax.errors import BAD_INPUT, DONE
from moe_jax.sweep.workdir import Workdir
from tests import synthetic_sweep as synthetic
from tests.hand_edits import change
from tests.submit_verb import HOSTILE, QUEUES, XPK, flag, runs_of


def metadata_of(call):
    """As gcloud reads KEY=VALUE,… (`gcloud topic escaping`)."""
    text, delimiter = flag(call, "--metadata"), ","
    if text.startswith("^"):
        _, delimiter, text = text.split("^", 2)
    return dict(pair.split("=", 1) for pair in text.split(delimiter))


def queues_of(submit):
    return [call for call in submit.gcloud.calls if call[3:4] == ["create"]]


def jobs_in(call):
    return [job.removeprefix("--run=") for job in metadata_of(call)["moe-jax-jobs"].split(";")]


@pytest.fixture
def queues(submit, monkeypatch):
    """The code is not sent anywhere."""
    from moe_jax.sweep.launchers import queued_resources

    monkeypatch.setattr(queued_resources.QueuedResources, "preparation", lambda self: [])
    return submit


def test_queues_share_the_jobs(queues):
    assert queues(*QUEUES, "--yes", "--queues=3", "--spot") == DONE
    calls, runs = queues_of(queues), runs_of(queues)
    assert len(calls) == 3
    assert sorted(job for call in calls for job in jobs_in(call)) == sorted(run.name for run in runs)
    flops = {run.name: run.counts.train_flops for run in runs}
    loads = [sum(flops[job] for job in jobs_in(call)) for call in calls]
    assert max(loads) - min(loads) <= max(flops.values())
    for call in calls:
        name = call[4]
        assert name == flag(call, "--node-id") == metadata_of(call)["moe-jax-queue"] and len(name) <= 40
        assert "--spot" in call and metadata_of(call)["moe-jax-workdir"] == str(queues.workdir)
    assert queues(*QUEUES, "--yes") == DONE
    assert len(queues_of(queues)) == 3


def test_a_queue_that_is_gone_is_made_again_with_what_is_left(queues, monkeypatch):
    """Spot capacity was taken away: its jobs wait without a sign, which their files alone do not tell."""
    queues(*QUEUES, "--yes", "--queues=2")
    work = Workdir(str(queues.workdir))
    first, second = queues_of(queues)
    done = jobs_in(first)[0]
    synthetic.finish(work, work.existing_manifest().run(done))
    states = {first[4]: "SUSPENDED", second[4]: "ACTIVE"}
    deleted = []

    def call(words):
        if words[4] == "describe":
            return 0, states[words[5]] + "\n"
        if words[4] == "delete":
            deleted.append(words[5])
        return 0, ""

    with monkeypatch.context() as m:
        m.setattr("moe_jax.sweep.launchers.queued_resources.call", call)
        assert queues(*QUEUES, "--yes", "--queues=2", "--retry_failed") == DONE
    assert deleted == [first[4]]
    new = queues_of(queues)[2:]
    assert sorted(job for c in new for job in jobs_in(c)) == sorted(jobs_in(first)[1:])
    assert all(c[4].endswith("-r1") for c in new)


def test_one_launcher_knows_nothing_of_anothers_jobs(queues, capsys):
    """A cluster's jobs, and those of another zone, are no lost ones because gcloud does not find them here."""
    queues(*XPK, "--yes")
    queues.gcloud.answers("NOT_FOUND\n", code=1)
    assert queues(*QUEUES, "--yes", "--retry_failed") == DONE
    assert "left alone: 8 queued" in capsys.readouterr().out and not queues.gcloud.calls
    for path in (queues.workdir / "submission").iterdir():
        record = json.loads(path.read_text())
        change(path, launcher="queued-resources:my-project/us-west4-b")
    assert queues(*QUEUES, "--yes", "--retry_failed") == DONE and not queues.gcloud.calls
    change(path, **record | {"state": "submitting", "time": 0.0})
    capsys.readouterr()
    assert queues(*QUEUES, "--yes") == DONE and not queues.gcloud.calls
    out = capsys.readouterr().out
    assert f"{record['job']}: its submission as {record['id']} to xpk:my-project/us-east5-a/pods was interrupted" in out
    queues.gcloud.answers()
    assert queues(*QUEUES, "--yes", f"--retry={record['job']}") == DONE
    assert [call[4] for call in queues_of(queues)] == [f"{record['id']}-r1"]


def test_nothing_is_deleted_before_the_answer(queues):
    queues(*QUEUES, "--yes")
    queues.gcloud.answers("SUSPENDED\n")
    before = len(queues.gcloud.calls)
    assert queues(*QUEUES, "--retry_failed") == BAD_INPUT
    assert {call[3] for call in queues.gcloud.calls[before:]} == {"describe"}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_workdirs_survive_gcloud(queues, tmp_path, capsys, hostile):
    workdir = str(tmp_path / hostile)
    assert queues(*QUEUES, "--dry_run", workdir=workdir) == DONE
    subprocess.run(["bash", "-euc", capsys.readouterr().out], cwd=tmp_path, check=True)
    assert metadata_of(queues.gcloud.calls[0])["moe-jax-workdir"] == workdir
    assert not list(tmp_path.rglob("hacked"))


def test_the_code_of_a_queue_is_a_commit(submit, capsys):
    assert submit(*QUEUES, "--dry_run") == DONE
    upload = shlex.split(next(x for x in capsys.readouterr().out.splitlines() if not x.startswith("#")))
    script, commit, target = upload
    assert script.endswith("tpu_scripts/upload_code.sh") and re.fullmatch("[0-9a-f]{40}", commit)
    assert target == f"{submit.workdir}/code/{commit[:12]}.tar.gz"
