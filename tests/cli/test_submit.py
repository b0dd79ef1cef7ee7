"""submit: every open run is given to a launcher once, with arguments that survive every shell on the way."""

import io
import re
import subprocess

import pytest

from moe_jax import files
from moe_jax.config import config_file
from moe_jax.errors import BAD_INPUT, DONE, FAILED, STOPPED, WorkFailed
from moe_jax.plan import rows as rows_lib
from moe_jax.plan.compiles import Compiles
from moe_jax.plan.grid_forecast import add_forecasts
from moe_jax.plan.step_forecast import Target
from moe_jax.sweep.launchers import slices
from moe_jax.sweep.launchers.remote import RemoteLauncher
from moe_jax.sweep.planned_grid import plan_grid
from moe_jax.sweep.select_jobs import LauncherView, RetryRequest, select_jobs
from moe_jax.sweep.submission_records import SubmissionRecords
from moe_jax.sweep.workdir import Workdir
from tests import synthetic_sweep as synthetic
from tests.data_stores import contents
from tests.fake_clients import FakeClient
from tests.fake_compiler import FakeCompiler
from tests.hand_edits import sealed_text
from tests.submit_verb import HOSTILE, QUEUES, WSD, XPK, as_kubernetes_does, flag, names, runs_of


def test_every_run_is_submitted_once(submit, capsys):
    assert submit(*XPK, "--yes") == DONE
    runs = runs_of(submit)
    assert len(runs) == 8
    sweep = Workdir(str(submit.workdir)).existing_manifest().sweep
    assert names(submit.xpk) == [f"{sweep}-{run.name}" for run in runs]
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", n) and len(n) <= 40 for n in names(submit.xpk))
    out = capsys.readouterr().out
    assert "to submit: 8 jobs: 24.6k tokens" in out and "chip-hours unknown" in out and "[8/8]" in out
    assert submit(*XPK, "--yes") == DONE
    assert len(submit.xpk.calls) == 8
    assert "left alone: 8 queued" in capsys.readouterr().out
    summary = files.read_json(Workdir(str(submit.workdir)).path / "submission.json")
    assert [job["runs"] for job in summary["jobs"]] == [[run.name] for run in runs]
    assert {job["state"] for job in summary["jobs"]} == {"queued"}


def test_a_job_restarts_on_what_a_restart_helps_and_ends_in_python(submit):
    submit(*XPK, "--yes", "--max_restarts=7", "--grace_seconds=90", "--priority=low", "--num_slices=2")
    call = submit.xpk.calls[0]
    assert call[:2] == ["workload", "create"]
    said = {name: flag(call, f"--{name}") for name in ("max-restarts", "restart-on-exit-codes", "priority")}
    assert said == {"max-restarts": "7", "restart-on-exit-codes": "1,75", "priority": "low"}
    assert flag(call, "--termination-grace-period-seconds") == "90" and flag(call, "--num-slices") == "2"
    assert flag(call, "--command") == (
        "exec env JAX_PLATFORMS=tpu,cpu python -m moe_jax train --multihost "
        f"--workdir={submit.workdir} --run={runs_of(submit)[0].name}"
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
def test_packs_are_not_given_to_several_hosts(submit, capsys, byte_store, slice, accepted):
    submit.config = "--config=configs/lr_sweep.py:smoke"
    packed = [f"--config.data.store={byte_store}", "--config.sweep.pack=4", "--dry_run"]
    code, printed = submit(*slice, *packed), capsys.readouterr()
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


def test_a_dry_run_prints_commands_and_writes_nothing(submit, capsys):
    assert submit(*XPK, "--dry_run") == DONE
    lines = capsys.readouterr().out.splitlines()
    assert not submit.workdir.exists() and not submit.xpk.calls
    assert len([line for line in lines if line.startswith("xpk workload create ")]) == 8
    assert all(line.startswith(("#", "xpk ")) for line in lines)
    submit(*XPK, "--yes")
    before = contents(submit.workdir)
    submit(*XPK, "--dry_run")
    assert contents(submit.workdir) == before


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_survive_every_shell(submit, tmp_path, capsys, hostile):
    workdir = str(tmp_path / hostile)
    image = f"repo/{hostile}"
    flags = [*XPK[:-1], f"--docker_image={image}", "--dry_run", "--", f"--env=X={hostile}"]
    assert submit(*flags, workdir=workdir) == DONE
    printed = capsys.readouterr().out
    done = subprocess.run(["bash", "-euc", printed], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    call = submit.xpk.calls[0]
    assert flag(call, "--docker-image") == image and flag(call, "--env") == f"X={hostile}"
    inside = flag(call, "--command")
    assert inside.isascii() and inside.isprintable()
    python = FakeClient(tmp_path, "python")
    script = as_kubernetes_does(f"({inside}) & PID=$!; wait $PID")
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env={"PATH": python.path}, check=True)
    assert f"--workdir={workdir}" in python.calls[0]
    assert not list(tmp_path.rglob("hacked"))


def test_nobody_is_charged_without_being_asked(submit, monkeypatch, capsys):
    assert submit(*XPK) == BAD_INPUT
    assert "--yes submits without asking" in capsys.readouterr().err
    terminal = io.StringIO("no\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    assert submit(*XPK) == STOPPED
    assert not submit.workdir.exists() and not submit.xpk.calls
    terminal.seek(0)
    terminal.write("yes\n")
    terminal.seek(0)
    assert submit(*XPK) == DONE
    assert len(submit.xpk.calls) == 8


def test_the_plans_costs_are_said(submit, capsys, tmp_path):
    grid = plan_grid(config_file.load([submit.config, submit.store]))
    steps = Compiles(tmp_path / "compiles", FakeCompiler())
    for topology, words in (
        ("v5e:2x2", "chip-hours unknown (plan.json is for v5e:2x2, and a job has 16 v5e chips"),
        ("v5e:4x4", "by plan.json 8 runs will not fit on v5e:4x4: "),  # a batch of 8 sequences, 16 devices
    ):
        rows = rows_lib.plan_rows(grid)
        rows = add_forecasts(rows, grid.runs, Target(topology, 1, False), rows_lib.Rates(), jobs=1, steps=steps)
        submit.workdir.mkdir(exist_ok=True)
        (submit.workdir / "plan.json").write_text(sealed_text({"runs": rows, "totals": {}}))
        assert submit(*XPK, "--dry_run") == DONE
        assert words in capsys.readouterr().out
    submit("--launcher=local", "--dry_run")
    assert re.search(r"to train here: 8 jobs: .* FLOPs$", capsys.readouterr().out, re.M)


def test_a_client_that_fails_is_quoted_and_the_rest_goes_on_later(submit, capsys):
    submit.xpk.answers("[XPK] Starting\n[XPK] quota exceeded\n", code=5)
    assert submit(*XPK, "--yes") == FAILED
    said = capsys.readouterr().err
    assert "xpk failed with code 5: [XPK] Starting / [XPK] quota exceeded; 0 of 8 jobs are queued" in said
    submit.xpk.answers()
    assert submit(*XPK, "--yes") == DONE
    assert len(submit.xpk.calls) == 9


def test_what_the_cluster_has_already_counts_as_queued(submit, capsys):
    submit(*XPK, "--dry_run")
    name = re.search(r"--workload=(\S+)", capsys.readouterr().out)[1]
    submit.xpk.answers(f"[XPK] {name} already exists, XPK will not create this workload. Please pick a new\n", code=1)
    assert submit(*XPK, "--yes") == FAILED  # the second job is another one
    assert f"{name}: exists already, so it counts as queued" in capsys.readouterr().out
    submit.xpk.answers()
    submit(*XPK, "--yes")
    assert names(submit.xpk).count(name) == 1 and len(set(names(submit.xpk))) == 8


def test_a_damaged_record_is_named(submit, capsys):
    submit(*XPK, "--yes")
    path = sorted((submit.workdir / "submission").iterdir())[3]
    path.write_text('{"job": "x"}')
    assert submit(*XPK, "--yes") == BAD_INPUT
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--launcher: give one of xpk, queued-resources, local"),
        ([*XPK, "--base_docker_image=x"], "not both"),
        ([*XPK, "--num_slices=0"], "--num_slices=0: must be at least 1"),
        ([*XPK, "--max_restarts=-1"], "--max_restarts=-1"),
        ([*XPK, "--grace_seconds=-7"], "--grace_seconds=-7"),
        ([*XPK, "--", "--command=rm"], "--command=rm: is set by submit"),
        ([*XPK, "--", "--workl=x"], "--workl=x: is set by submit"),
        ([*XPK, "--", "--quiet"], "--quiet: makes xpk delete"),
        ([*XPK, "--", "--dry-run"], "--dry-run: is set by submit"),
        ([*QUEUES, "--queues=0"], "--queues=0: must be at least 1"),
        ([*QUEUES, "--", "--metadata=a=b"], "--metadata=a=b: is set by submit"),
        ([f for f in XPK if f != "--shared_filesystem"], "is on this machine, and the jobs run elsewhere"),
        (["--launcher=local", "--", "--x"], "passes nothing on"),
        (["--launcher=local", "--jobs=0"], "--jobs=0"),
    ],
)
def test_bad_flags_are_sentences(submit, capsys, flags, words):
    assert submit(*flags, "--yes") == BAD_INPUT
    assert words in capsys.readouterr().err and not submit.workdir.exists()


def test_a_dry_run_needs_neither_store_nor_bucket(submit, capsys):
    """From a clean clone a paper's grid shows its commands, and what would be refused without --dry_run."""
    submit.config, submit.store = "--config=configs/krajewski2024.py:table3", "--config.data.store=stores/nowhere"
    flags = [f for f in XPK if f != "--shared_filesystem"]
    assert submit(*flags, "--dry_run") == DONE
    out = capsys.readouterr().out
    assert out.count("\nxpk workload create") == 78 and not submit.workdir.exists()
    assert "# refused without --dry_run: --workdir=" in out
    assert "# there is no token store at stores/nowhere yet; make it with: moe-jax prepare --config=" in out
    assert submit(*XPK, "--yes") == BAD_INPUT
    assert "stores/nowhere: give its absolute path" in capsys.readouterr().err


def test_flags_of_another_launcher_are_unknown(submit, capsys):
    assert submit(*XPK, "--queues=2") == BAD_INPUT and "there is no flag --queues=2" in capsys.readouterr().err


def test_a_missing_client_is_a_sentence_and_no_matter_to_a_dry_run(submit, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert submit(*XPK, "--yes") == BAD_INPUT
    assert "xpk: is not installed here" in capsys.readouterr().err and not submit.workdir.exists()
    assert submit(*XPK, "--dry_run") == DONE


def test_a_trunk_and_its_branches_are_one_job(submit):
    assert submit(*XPK, *WSD, "--yes") == DONE
    commands = [flag(call, "--command") for call in submit.xpk.calls]
    assert len(commands) == 4 and all("--trunk=" in c and c.endswith(" --branches") for c in commands)


def test_batches_are_taken_whole(tmp_path):
    """Another submitter that dealt them in another way may have one job of a batch: then nothing of it is submitted."""
    work, _ = synthetic.make(tmp_path / "w")
    view = LauncherView(None, lambda batches: pytest.fail("nothing was submitted"))
    selection = select_jobs(work, work.existing_manifest(), {}, RetryRequest(), view)
    a, b = SubmissionRecords(work), SubmissionRecords(work)
    assert a.claim(selection.submissions[1], "queued-resources", "other")

    class Launcher(RemoteLauncher):
        address = "queued-resources:p/z"

        def command(self, batch):
            return []

        def already_exists(self, name, output):
            return False

        def batches(self, submissions):
            return [submissions[:3]]

    with pytest.raises(WorkFailed, match="another submitter is submitting these jobs now"):
        Launcher(str(work.path), True).launch(selection, work, b, print)
    assert list(b.newest()) == [selection.submissions[1].job.name]


def test_a_grid_of_this_machine(submit, capsys):
    assert submit("--launcher=local", "--dry_run") == DONE
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    assert len(lines) == 8 and lines[0] == f"moe-jax train --workdir={submit.workdir} --run=n768-d2k-g1-s0"
    assert submit("--launcher=local") == BAD_INPUT
    assert not submit.workdir.exists()
    submit(*XPK, "--yes")
    assert submit("--launcher=local", "--yes") == DONE  # what another launcher has is not trained here too
    assert "there is nothing to train here" in capsys.readouterr().out


def test_grids_are_expanded_as_sweep_does(submit):
    submit(*XPK, "--yes")
    from moe_jax.config import config_file

    file = config_file.load([submit.config, submit.store])
    assert [run.name for run in file.runs()] == [run.name for run in runs_of(submit)]
