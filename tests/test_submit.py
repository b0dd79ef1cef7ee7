"""submit: every open run is given to a launcher once, with arguments that survive every shell on the way."""

import dataclasses
import io
import json
import re
import shlex
import subprocess
import threading

import pytest

from moe_jax import (
    choosing,
    command,
    configfile,
    files,
    forecasts,
    grid,
    plan_rows,
    planning,
    submission,
    submit,
    submitting,
)
from moe_jax.compiles import Compiles
from moe_jax.errors import BAD_INPUT, DONE, FAILED, STOPPED, UserError, WorkFailed
from moe_jax.forecast import Target
from moe_jax.launchers import remote, rounds, slices, xpk
from moe_jax.outlook import of
from moe_jax.submission import Submission
from moe_jax.workdir import Workdir
from tests import synthetic_sweep as synthetic
from tests.data_stores import contents, make_store
from tests.fake_clients import FakeClient
from tests.fake_compiler import FakeCompiler

CONFIG = "--config=configs/smoke.py:tiny"
CLOUD = ["--project=my-project", "--zone=us-east5-a", "--shared_filesystem"]
XPK = ["--launcher=xpk", *CLOUD, "--cluster=pods", "--tpu_type=v5litepod-16", "--docker_image=repo/moe_jax:1"]
QUEUES = [
    "--launcher=queued-resources", *CLOUD, "--accelerator_type=v5litepod-16", "--runtime_version=v2-alpha-tpuv5-lite",
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "words"
    make_store(path)
    return f"--config.data.store={path}"


@pytest.fixture
def place(tmp_path, monkeypatch, store):
    """place(*flags) -> exit code of `submit` on tmp_path/w, with a fake xpk and gcloud; place.xpk, place.gcloud."""
    monkeypatch.setattr(xpk, "client_path", lambda: "xpk")

    def go(*flags, workdir=None):
        where = f"--workdir={go.workdir if workdir is None else workdir}"
        return command.run(submit.main, [CONFIG, store, where, *flags])

    go.workdir, go.store = tmp_path / "w", store
    go.xpk, go.gcloud = FakeClient(tmp_path, "xpk"), FakeClient(tmp_path, "gcloud")
    monkeypatch.setenv("PATH", f"{go.xpk.bin}:{go.gcloud.path}")
    return go


def flag(arguments, name):
    (value,) = [a.partition("=")[2] for a in arguments if a.startswith(f"{name}=")]
    return value


def names(client):
    return [flag(call, "--workload") for call in client.calls]


def runs_of(place):
    return Workdir(str(place.workdir)).existing_manifest().runs


def test_every_run_is_submitted_once(place, capsys):
    assert place(*XPK, "--yes") == DONE
    runs = runs_of(place)
    assert len(runs) == 8
    sweep = Workdir(str(place.workdir)).existing_manifest().sweep
    assert names(place.xpk) == [f"{sweep}-{run.name}" for run in runs]
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", n) and len(n) <= 40 for n in names(place.xpk))
    out = capsys.readouterr().out
    assert "to submit: 8 jobs: 24.6k tokens" in out and "chip-hours unknown" in out and "[8/8]" in out
    assert place(*XPK, "--yes") == DONE
    assert len(place.xpk.calls) == 8
    assert "left alone: 8 queued" in capsys.readouterr().out
    summary = files.read_json(Workdir(str(place.workdir)).path / "submission.json")
    assert [job["runs"] for job in summary["jobs"]] == [[run.name] for run in runs]
    assert {job["state"] for job in summary["jobs"]} == {"queued"}


def test_a_job_restarts_on_what_a_restart_helps_and_ends_in_python(place):
    place(*XPK, "--yes", "--max_restarts=7", "--grace_seconds=90", "--priority=low", "--num_slices=2")
    call = place.xpk.calls[0]
    assert call[:2] == ["workload", "create"]
    said = {name: flag(call, f"--{name}") for name in ("max-restarts", "restart-on-exit-codes", "priority")}
    assert said == {"max-restarts": "7", "restart-on-exit-codes": "1,75", "priority": "low"}
    assert flag(call, "--termination-grace-period-seconds") == "90" and flag(call, "--num-slices") == "2"
    assert flag(call, "--command") == (
        "exec env JAX_PLATFORMS=tpu,cpu python -m moe_jax.train --multihost "
        f"--workdir={place.workdir} --run={runs_of(place)[0].name}"
    )


@pytest.mark.parametrize(
    ("slice", "accepted"),
    [
        ([*XPK, "--tpu_type=v6e-4"], True),
        ([*XPK, "--tpu_type=v6e-4", "--num_slices=2"], False),
        ([*XPK, "--tpu_type=v5litepod-8"], False),
        ([*QUEUES, "--accelerator_type=v5litepod-8"], True),
        (QUEUES, False),
    ],
)
def test_packs_are_not_given_to_several_hosts(place, capsys, monkeypatch, byte_store, slice, accepted):
    monkeypatch.setitem(globals(), "CONFIG", "--config=configs/lr_sweep.py:smoke")
    packed = [f"--config.data.store={byte_store}", "--config.sweep.pack=4", "--dry_run"]
    code, printed = place(*slice, *packed), capsys.readouterr()
    assert (code, "--pack=" in printed.out) == ((DONE, True) if accepted else (BAD_INPUT, False))
    assert accepted or "packed runs are trained by one process, and a job has" in printed.err


GROWING = """
from configs import smoke

def get_config(arg=None):
    config = smoke.get_config("tiny")
    config.sweep.pack, config.train.tokens = 3, 2048
    return config

def get_grid(arg=None):
    return [{"seed": seed} for seed in range(int(arg))]
"""


def test_a_run_that_is_queued_is_not_submitted_again_in_a_pack_of_a_grown_grid(place, capsys, monkeypatch, tmp_path):
    (tmp_path / "growing.py").write_text(GROWING)
    slice = [*XPK, "--tpu_type=v6e-1", "--yes"]

    def grown(n):
        monkeypatch.setitem(globals(), "CONFIG", f"--config={tmp_path / 'growing.py'}:{n}")
        assert place(*slice) == DONE
        return [flag(call, "--command").split()[-1] for call in place.xpk.calls]

    (first,) = grown(1)
    assert first.startswith("--run=")
    flags = grown(3)
    assert len(flags) == 3 and all(f.startswith("--run=") for f in flags) and len(set(flags)) == 3
    assert "left alone: 1 queued" in capsys.readouterr().out
    assert grown(3) == flags and "there is nothing to submit" in capsys.readouterr().out
    assert len(grown(6)) == 4  # the second pack is whole


def grown_by_one(place, monkeypatch, tmp_path):
    """(flags, runs): a pack of three seeds, submitted one by one: the grid had only the first before."""
    (tmp_path / "growing.py").write_text(GROWING)
    flags = [*XPK, "--tpu_type=v6e-1", "--yes"]
    for n in (1, 3):
        monkeypatch.setitem(globals(), "CONFIG", f"--config={tmp_path / 'growing.py'}:{n}")
        place(*flags)
    assert len(place.xpk.calls) == 3
    return flags, runs_of(place)


def test_of_runs_that_were_submitted_apart_the_one_that_failed_is_submitted_again(place, capsys, monkeypatch, tmp_path):
    flags, runs = grown_by_one(place, monkeypatch, tmp_path)
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


def test_a_run_submitted_apart_whose_submitter_died_is_taken_over(place, monkeypatch, tmp_path):
    flags, _ = grown_by_one(place, monkeypatch, tmp_path)
    path = place.workdir / "submission" / f"{names(place.xpk)[1]}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "submitting", "time": 0.0}))
    assert place(*flags) == DONE
    assert names(place.xpk)[3:] == [names(place.xpk)[1]]
    assert place(*flags) == DONE and len(place.xpk.calls) == 4


def test_what_is_queued_keeps_its_job(place, capsys, monkeypatch, tmp_path):
    """Else its pod would find no such pack or trunk, and its runs would be queued for ever."""
    (tmp_path / "growing.py").write_text(GROWING)
    monkeypatch.setitem(globals(), "CONFIG", f"--config={tmp_path / 'growing.py'}:3")
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


def test_a_submitted_trunk_keeps_its_branches(place, tmp_path):
    wsd = ["schedule='wsd'", "warmup_fraction=None", "warmup_tokens=512", "decay_fraction=0.25"]
    flags = [f"--config.optim.{field}" for field in wsd]
    assert place(*XPK, "--yes", *flags) == DONE
    work, run = Workdir(str(place.workdir)), runs_of(place)[0]

    def join(*others):
        cell = [f"--config.{field}={value!r}" for field, value in run.overrides.items()]
        file = configfile.load([CONFIG, place.store, *flags, *cell, *others])
        return planning.enter(file, work, whole_grid=False)

    join()
    with pytest.raises(UserError, match=rf"{run.name}: .*, submitted as .*, is to train it, and would not"):
        join("--config.mesh.expert=1")
    for branch in runs_of(place):
        if branch.name.split("-")[::2] == run.name.split("-")[::2]:  # all but D
            synthetic.finish(work, branch)
    join("--config.mesh.expert=1")


@pytest.mark.parametrize(
    ("name", "gke", "vm"),
    [
        ("v5litepod-1", 1, 1), ("v5litepod-8", 2, 1), ("v5litepod-16", 4, 4), ("v6e-8", 2, 1), ("v6e-2x4", 2, 1),
        ("v5p-8", 1, 1), ("v5p-16", 2, 2), ("v5p-4x4x4", 16, 16), ("v4-8", 1, 1), ("tpu7x-2", 1, 1), ("x", None, None),
    ],
)  # fmt: skip
def test_hosts_by_the_name_of_a_slice(name, gke, vm):
    one, three, other = slices.on_gke(name, 1), slices.on_gke(name, 3), slices.of_tpu_vm(name)
    if gke is None:
        assert one is three is other is None
    else:
        assert (one.hosts, three.hosts, other.hosts) == (gke, 3 * gke, vm)


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


def test_a_dry_run_prints_commands_and_writes_nothing(place, capsys):
    assert place(*XPK, "--dry_run") == DONE
    lines = capsys.readouterr().out.splitlines()
    assert not place.workdir.exists() and not place.xpk.calls
    assert len([line for line in lines if line.startswith("xpk workload create ")]) == 8
    assert all(line.startswith(("#", "xpk ")) for line in lines)
    place(*XPK, "--yes")
    before = contents(place.workdir)
    place(*XPK, "--dry_run")
    assert contents(place.workdir) == before


HOSTILE = [
    "a 'b' \"c\"",
    "$(touch hacked) `touch hacked` $HOME $(HOME) $$",
    "new\nline; x\t\x1b",
    "ünï ♥ \u2028",
    "-x,y=z|<0>",
    "\\",
]


def as_kubernetes_does(text):
    """A container's command: $(NAME) of its environment is replaced, $$ is $ (k8s.io/kubernetes third_party/forked/
    golang/expansion)."""
    return re.sub(r"\$(\$|\((\w+)\))", lambda m: "$" if m[1] == "$" else {"HOME": "/root"}.get(m[2], m[0]), text)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_survive_every_shell(place, tmp_path, capsys, hostile):
    workdir = str(tmp_path / hostile)
    image = f"repo/{hostile}"
    assert place(*XPK[:-1], f"--docker_image={image}", "--dry_run", "--", f"--env=X={hostile}", workdir=workdir) == DONE
    printed = capsys.readouterr().out
    done = subprocess.run(["bash", "-euc", printed], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    call = place.xpk.calls[0]
    assert flag(call, "--docker-image") == image and flag(call, "--env") == f"X={hostile}"
    inside = flag(call, "--command")
    assert inside.isascii() and inside.isprintable()
    python = FakeClient(tmp_path, "python")
    script = as_kubernetes_does(f"({inside}) & PID=$!; wait $PID")
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env={"PATH": python.path}, check=True)
    assert f"--workdir={workdir}" in python.calls[0]
    assert not list(tmp_path.rglob("hacked"))


def test_nobody_is_charged_without_being_asked(place, monkeypatch, capsys):
    assert place(*XPK) == BAD_INPUT
    assert "--yes submits without asking" in capsys.readouterr().err
    terminal = io.StringIO("no\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    assert place(*XPK) == STOPPED
    assert not place.workdir.exists() and not place.xpk.calls
    terminal.seek(0)
    terminal.write("yes\n")
    terminal.seek(0)
    assert place(*XPK) == DONE
    assert len(place.xpk.calls) == 8


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


def test_the_plans_costs_are_said(place, capsys, tmp_path):
    outlook = of(configfile.load([CONFIG, place.store]))
    steps = Compiles(tmp_path / "compiles", FakeCompiler())
    for topology, words in (
        ("v5e:2x2", "chip-hours unknown (plan.json is for v5e:2x2, and a job has 16 v5e chips"),
        ("v5e:4x4", "by plan.json 8 runs will not fit on v5e:4x4: "),  # a batch of 8 sequences, 16 devices
    ):
        rows = plan_rows.rows(outlook)
        rows = forecasts.add(rows, outlook.runs, Target(topology, 1, False), plan_rows.Rates(), jobs=1, steps=steps)
        place.workdir.mkdir(exist_ok=True)
        (place.workdir / "plan.json").write_text(json.dumps({"runs": rows, "totals": {}}))
        assert place(*XPK, "--dry_run") == DONE
        assert words in capsys.readouterr().out
    place("--launcher=local", "--dry_run")
    assert re.search(r"to train here: 8 jobs: .* FLOPs$", capsys.readouterr().out, re.M)


def test_a_client_that_fails_is_quoted_and_the_rest_goes_on_later(place, capsys):
    place.xpk.answers("[XPK] Starting\n[XPK] quota exceeded\n", code=5)
    assert place(*XPK, "--yes") == FAILED
    said = capsys.readouterr().err
    assert "xpk failed with code 5: [XPK] Starting / [XPK] quota exceeded; 0 of 8 jobs are queued" in said
    place.xpk.answers()
    assert place(*XPK, "--yes") == DONE
    assert len(place.xpk.calls) == 9


def test_what_the_cluster_has_already_counts_as_queued(place, capsys):
    place(*XPK, "--dry_run")
    name = re.search(r"--workload=(\S+)", capsys.readouterr().out)[1]
    place.xpk.answers(f"[XPK] {name} already exists, XPK will not create this workload. Please pick a new\n", code=1)
    assert place(*XPK, "--yes") == FAILED  # the second job is another one
    assert f"{name}: is there already, so it counts as queued" in capsys.readouterr().out
    place.xpk.answers()
    place(*XPK, "--yes")
    assert names(place.xpk).count(name) == 1 and len(set(names(place.xpk))) == 8


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


def test_a_damaged_record_is_named(place, capsys):
    place(*XPK, "--yes")
    path = sorted((place.workdir / "submission").iterdir())[3]
    path.write_text('{"job": "x"}')
    assert place(*XPK, "--yes") == BAD_INPUT
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--launcher: give one of xpk, queued-resources, local"),
        ([*XPK, "--base_docker_image=x"], "not both"),
        ([*XPK, "--num_slices=0"], "--num_slices=0: must be at least 1"),
        ([*XPK, "--max_restarts=-1"], "--max_restarts=-1"),
        ([*XPK, "--grace_seconds=-7"], "--grace_seconds=-7"),
        ([*XPK, "--", "--command=rm"], "--command=rm: is for submit to set"),
        ([*XPK, "--", "--workl=x"], "--workl=x: is for submit to set"),
        ([*XPK, "--", "--quiet"], "--quiet: makes xpk delete"),
        ([*XPK, "--", "--dry-run"], "--dry-run: is for submit to set"),
        ([*QUEUES, "--queues=0"], "--queues=0: must be at least 1"),
        ([*QUEUES, "--", "--metadata=a=b"], "--metadata=a=b: is for submit to set"),
        ([f for f in XPK if f != "--shared_filesystem"], "is on this machine, and the jobs run elsewhere"),
        (["--launcher=local", "--", "--x"], "passes nothing on"),
        (["--launcher=local", "--jobs=0"], "--jobs=0"),
    ],
)
def test_bad_flags_are_sentences(place, capsys, flags, words):
    assert place(*flags, "--yes") == BAD_INPUT
    assert words in capsys.readouterr().err and not place.workdir.exists()


def test_flags_of_another_launcher_are_unknown(place, capsys):
    with pytest.raises(SystemExit) as e:
        place(*XPK, "--queues=2")
    assert e.value.code == BAD_INPUT and "--queues=2" in capsys.readouterr().err


def test_a_missing_client_is_a_sentence_and_no_matter_to_a_dry_run(place, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert place(*XPK, "--yes") == BAD_INPUT
    assert "xpk: is not installed here" in capsys.readouterr().err and not place.workdir.exists()
    assert place(*XPK, "--dry_run") == DONE


def metadata_of(call):
    """As gcloud reads KEY=VALUE,… (`gcloud topic escaping`)."""
    text, delimiter = flag(call, "--metadata"), ","
    if text.startswith("^"):
        _, delimiter, text = text.split("^", 2)
    return dict(pair.split("=", 1) for pair in text.split(delimiter))


def queues_of(place):
    return [call for call in place.gcloud.calls if call[3:4] == ["create"]]


def jobs_in(call):
    return [job.removeprefix("--run=") for job in metadata_of(call)["moe-jax-jobs"].split(";")]


@pytest.fixture
def queues(place, monkeypatch):
    """The code is not sent anywhere."""
    from moe_jax.launchers import queued_resources

    monkeypatch.setattr(queued_resources.QueuedResources, "preparation", lambda self: [])
    return place


def test_queues_share_the_jobs(queues):
    assert queues(*QUEUES, "--yes", "--queues=3", "--spot") == DONE
    calls, runs = queues_of(queues), runs_of(queues)
    assert len(calls) == 3
    assert sorted(job for call in calls for job in jobs_in(call)) == sorted(run.name for run in runs)
    flops = {run.name: run.counts["train_flops"] for run in runs}
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
        m.setattr("moe_jax.launchers.queued_resources.call", call)
        assert queues(*QUEUES, "--yes", "--queues=2", "--retry_failed") == DONE
    assert deleted == [first[4]]
    new = queues_of(queues)[2:]
    assert sorted(job for c in new for job in jobs_in(c)) == sorted(jobs_in(first)[1:])
    assert all(c[4].endswith("-r1") for c in new)


def test_one_launcher_knows_nothing_of_anothers_jobs(queues, monkeypatch, capsys):
    """A cluster's jobs, and those of another zone, are no lost ones because gcloud does not find them here."""
    queues(*XPK, "--yes")
    queues.gcloud.answers("NOT_FOUND\n", code=1)
    assert queues(*QUEUES, "--yes", "--retry_failed") == DONE
    assert "left alone: 8 queued" in capsys.readouterr().out and not queues.gcloud.calls
    for path in (queues.workdir / "submission").iterdir():
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"launcher": "queued-resources:my-project/us-west4-b"}))
    assert queues(*QUEUES, "--yes", "--retry_failed") == DONE and not queues.gcloud.calls
    path.write_text(json.dumps(record | {"state": "submitting", "time": 0.0}))
    capsys.readouterr()
    assert queues(*QUEUES, "--yes") == DONE and not queues.gcloud.calls
    out = capsys.readouterr().out
    assert f"{record['job']}: whoever submitted it as {record['id']} to xpk:my-project/us-east5-a/pods died" in out
    queues.gcloud.answers()
    assert queues(*QUEUES, "--yes", f"--retry={record['job']}") == DONE
    assert [call[4] for call in queues_of(queues)] == [f"{record['id']}-r1"]


def test_nothing_is_deleted_before_the_answer(queues, monkeypatch, capsys):
    queues(*QUEUES, "--yes")
    queues.gcloud.answers("SUSPENDED\n")
    before = len(queues.gcloud.calls)
    assert queues(*QUEUES, "--retry_failed") == BAD_INPUT
    assert {call[3] for call in queues.gcloud.calls[before:]} == {"describe"}


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


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_workdirs_survive_gcloud(queues, tmp_path, capsys, hostile):
    workdir = str(tmp_path / hostile)
    assert queues(*QUEUES, "--dry_run", workdir=workdir) == DONE
    subprocess.run(["bash", "-euc", capsys.readouterr().out], cwd=tmp_path, check=True)
    assert metadata_of(queues.gcloud.calls[0])["moe-jax-workdir"] == workdir
    assert not list(tmp_path.rglob("hacked"))


def test_the_code_of_a_queue_is_a_commit(place, capsys):
    assert place(*QUEUES, "--dry_run") == DONE
    upload = shlex.split(next(x for x in capsys.readouterr().out.splitlines() if not x.startswith("#")))
    script, commit, target = upload
    assert script.endswith("tpu_scripts/upload_code.sh") and re.fullmatch("[0-9a-f]{40}", commit)
    assert target == f"{place.workdir}/code/{commit[:12]}.tar.gz"


WSD = [
    "--config.optim.schedule=wsd", "--config.optim.decay_fraction=0.25", "--config.optim.warmup_fraction=None",
    "--config.optim.warmup_tokens=512",
]  # fmt: skip


def test_a_trunk_and_its_branches_are_one_job(place):
    assert place(*XPK, *WSD, "--yes") == DONE
    commands = [flag(call, "--command") for call in place.xpk.calls]
    assert len(commands) == 4 and all("--trunk=" in c and c.endswith(" --branches") for c in commands)


def test_branches_of_an_extended_grid_are_submitted_when_the_first_are_done(tmp_path, store):
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


def test_batches_are_taken_whole(tmp_path):
    """Another submitter that dealt them in another way may have one job of a batch: then nothing of it is submitted."""
    work, _ = synthetic.make(tmp_path / "w")
    here = choosing.Here(None, lambda batches: pytest.fail("nothing was submitted"))
    choice = choosing.choose(work, work.existing_manifest(), {}, choosing.Again(), here)
    a, b = Submission(work), Submission(work)
    assert a.claim(choice.tickets[1], "queued-resources", "other")

    class Client:
        address = "queued-resources:p/z"

        def command(self, batch):
            return []

        def preparation(self):
            return []

        def name(self, batch):
            return batch[0].id

    with pytest.raises(WorkFailed, match="another submitter takes these jobs now"):
        submitting.submit(Client(), [choice.tickets[:3]], work, b, print)
    assert list(b.newest()) == [choice.tickets[1].job.name]


def test_a_grid_of_this_machine(place, capsys):
    assert place("--launcher=local", "--dry_run") == DONE
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    assert len(lines) == 8 and lines[0] == f"moe-jax train --workdir={place.workdir} --run=n768-d2k-g1-s0"
    assert place("--launcher=local") == BAD_INPUT
    assert not place.workdir.exists()
    place(*XPK, "--yes")
    assert place("--launcher=local", "--yes") == DONE  # what another launcher has is not trained here too
    assert "there is nothing to train here" in capsys.readouterr().out


def test_grids_are_expanded_as_sweep_does(place):
    place(*XPK, "--yes")
    from moe_jax import configfile

    file = configfile.load([CONFIG, place.store])
    assert [run.name for run in grid.expand(file.base.to_dict(), file.cells)] == [run.name for run in runs_of(place)]
