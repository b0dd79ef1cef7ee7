"""submit: every open run is given to a launcher once, with arguments that survive every shell on the way."""

import io
import json
import re
import subprocess

import pytest

from moe_jax import (
    choosing,
    configfile,
    files,
    forecasts,
    grid,
    plan_rows,
    submitting,
)
from moe_jax.compiles import Compiles
from moe_jax.errors import BAD_INPUT, DONE, FAILED, STOPPED, WorkFailed
from moe_jax.forecast import Target
from moe_jax.launchers import slices
from moe_jax.outlook import of
from moe_jax.submission import Submission
from moe_jax.workdir import Workdir
from tests import synthetic_sweep as synthetic
from tests.data_stores import contents
from tests.fake_clients import FakeClient
from tests.fake_compiler import FakeCompiler
from tests.submitting import HOSTILE, QUEUES, WSD, XPK, as_kubernetes_does, flag, names, runs_of


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
def test_packs_are_not_given_to_several_hosts(place, capsys, byte_store, slice, accepted):
    place.config = "--config=configs/lr_sweep.py:smoke"
    packed = [f"--config.data.store={byte_store}", "--config.sweep.pack=4", "--dry_run"]
    code, printed = place(*slice, *packed), capsys.readouterr()
    assert (code, "--pack=" in printed.out) == ((DONE, True) if accepted else (BAD_INPUT, False))
    assert accepted or "packed runs are trained by one process, and a job has" in printed.err


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


def test_the_plans_costs_are_said(place, capsys, tmp_path):
    outlook = of(configfile.load([place.config, place.store]))
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


def test_a_trunk_and_its_branches_are_one_job(place):
    assert place(*XPK, *WSD, "--yes") == DONE
    commands = [flag(call, "--command") for call in place.xpk.calls]
    assert len(commands) == 4 and all("--trunk=" in c and c.endswith(" --branches") for c in commands)


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

    file = configfile.load([place.config, place.store])
    assert [run.name for run in grid.expand(file.base.to_dict(), file.cells)] == [run.name for run in runs_of(place)]
