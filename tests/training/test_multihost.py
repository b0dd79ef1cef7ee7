"""Two and four real processes train what one trains, write it once, stop together, and any number goes on with it."""

import re
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest

from moe_jax import errors
from moe_jax.cli import command, train
from moe_jax.config import config_file
from moe_jax.sweep import from_config, jobs
from moe_jax.sweep.workdir import Workdir
from moe_jax.training import loop
from moe_jax.training.goal import run_goal
from moe_jax.training.options import Options
from tests.conftest import ROOT, child_environment

STEPS = 24
HEARTBEAT_SECONDS = 10
# What Gloo prints, piece by piece: its threads write at once, so that the lines of one process come torn and mixed.
GLOO = re.compile(r"\[Gloo\] Rank | is connected to | peer ranks\. |Expected number of connected peer ranks is : ")


@pytest.fixture(scope="module")
def flags(byte_store):
    return [
        "--config=configs/smoke.py:tiny", f"--config.data.store={byte_store}", f"--config.train.tokens={STEPS * 256}",
        "--config.checkpoint.every_steps=4", "--config.data.mask_documents=True", "--config.mesh.data=-1",
        "--config.mesh.expert=2",
    ]  # fmt: skip


def alone(flags, path):
    """Trains in this process, on one of its devices; the run's folder."""
    workdir = Workdir(str(path))
    one = [f for f in flags if "mesh" not in f]
    manifest, runs, store = from_config.enter(config_file.load(one), workdir, whole_grid=False)
    goal = run_goal(manifest.run(runs[0].name), workdir, manifest.store)
    loop.train([goal], store, manifest.store, Options(say=lambda sentence: None, devices=jax.devices()[:1]))
    return goal.folder


@pytest.fixture(scope="module")
def one(flags, tmp_path_factory):
    return alone(flags, tmp_path_factory.mktemp("one"))


class Several:
    """`n` processes of so many devices each that train in `path`; `said` is what each has printed."""

    def __init__(self, flags, path, n=2, devices=2, **environment):
        self.path = path
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        path.mkdir(exist_ok=True)
        self._logs = [path / f"said{i}.txt" for i in range(n)]
        self.processes = []
        for i, log in enumerate(self._logs):
            several = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={n}", f"--process_id={i}"]
            options = [f"--distributed_heartbeat_seconds={HEARTBEAT_SECONDS}", "--heartbeat_seconds=0.5"]
            with log.open("wb") as out:
                arguments = [sys.executable, "-m", "moe_jax", "train", *flags, f"--workdir={path}", *several, *options]
                self.processes.append(
                    subprocess.Popen(
                        arguments, cwd=ROOT, env=child_environment(devices, **environment), stdout=out,
                        stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                    )
                )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    @property
    def said(self):
        return [log.read_text(errors="replace") for log in self._logs]

    def wait_for_a_checkpoint(self, beyond=0, of="runs", seconds=600):
        """Of a step after `beyond`."""
        until = time.monotonic() + seconds
        while self.newest_saved(of) <= beyond:
            assert time.monotonic() < until and all(p.poll() is None for p in self.processes), self.said
            time.sleep(0.05)

    @property
    def newest_step(self):
        return self.newest_saved("runs")

    def newest_saved(self, of):
        names = [p.name.split(".")[0] for p in self.path.glob(f"{of}/*/checkpoints/*.sha256.json")]
        return max(map(int, names), default=0)

    def codes(self, seconds=600):
        return [process.wait(timeout=seconds) for process in self.processes]

    @property
    def folder(self):
        (run,) = (self.path / "runs").iterdir()
        return Workdir(str(self.path)).run_dir(run.name)


def check_equal(folder, other, rel, steps=STEPS):
    lines, others = folder.read_metrics(), other.read_metrics()
    assert [line["step"] for line in lines] == [line["step"] for line in others] == list(range(steps))
    for line, reference in zip(lines, others, strict=True):
        for name in ("loss", "gradient_norm", "dropped_fraction", "max_over_mean_load"):
            assert line[name] == pytest.approx(reference[name], rel=rel), (line["step"], name)
    result, reference = folder.result(), other.result()
    for name in ("eval_loss", "train_loss", "bits_per_byte"):
        assert getattr(result, name) == pytest.approx(getattr(reference, name), rel=rel), name
    if reference.eval_loss_capacity is None:  # a run that drops nothing has no second loss
        assert result.eval_loss_capacity is None
    else:
        assert result.eval_loss_capacity == pytest.approx(reference.eval_loss_capacity, rel=rel)


@pytest.mark.slow
@pytest.mark.parametrize(
    "router",
    [
        ["moe.dispatch=dropless", "moe.bias_update_rate=0.01"],
        # A group is all of the batch's sequences at one position: exchanged between the processes.
        [
            "moe.router=expert_choice",
            "moe.softmax=over_experts",
            "moe.load_balance_loss_weight=0",
            "moe.group_sequences=8",
        ],
    ],
    ids=["dropless, with biases", "expert choice"],
)
def test_two_processes_route_as_one(flags, router, tmp_path):
    flags = [*flags, *(f"--config.{field}" for field in router)]
    with Several(flags, tmp_path / "two") as two:
        assert two.codes() == [0, 0], two.said
    check_equal(two.folder, alone(flags, tmp_path / "one"), rel=1e-5)


@pytest.mark.slow
def test_two_processes_train_what_one_trains(flags, one, tmp_path):
    """And only the first says and writes anything."""
    with Several(flags, tmp_path / "two") as two:
        assert two.codes() == [0, 0], two.said
    check_equal(two.folder, one, rel=1e-5)
    assert two.folder.result().n_devices == 4 and two.folder.run_record().mesh == {"replica": 1, "data": 2, "expert": 2}
    assert [a.exit_code for a in two.folder.attempts()] == [0]
    first, second = (GLOO.sub("", said).splitlines() for said in two.said)
    assert sum("blocks.moe.w_in_ExdxF" in line for line in first) == 1 and any(": done, eval loss" in x for x in first)
    assert [line for line in second if line.strip("0123456789 ")] == []


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_one_process_goes_on(flags, one, tmp_path):
    with Several(flags, tmp_path / "killed") as two:
        two.wait_for_a_checkpoint()
        two.processes[1].kill()
        codes = two.codes(seconds=20 * HEARTBEAT_SECONDS)  # it ends by itself
    assert codes[1] == -signal.SIGKILL and codes[0] not in (0, errors.BAD_INPUT, errors.DIVERGED, errors.STOPPED)
    assert two.folder.result() is None
    check_equal(alone(flags, two.path), one, rel=1e-5)


@pytest.mark.slow
def test_asking_one_process_to_stop_stops_both_and_both_go_on(flags, one, tmp_path):
    with Several(flags, tmp_path / "stopped") as two:
        two.wait_for_a_checkpoint()
        two.processes[1].send_signal(signal.SIGTERM)
        assert two.codes() == [errors.STOPPED] * 2, two.said
    assert all("stopped at step" in said and "Traceback" not in said for said in two.said)
    with Several(flags, two.path) as again:
        assert again.codes() == [0, 0], again.said
    assert "goes on at step" in again.said[0]
    check_equal(again.folder, one, rel=1e-5)
    assert [a.exit_code for a in again.folder.attempts()] == [errors.STOPPED, 0]


BRANCHING = """
from configs import smoke

def get_config(arg=None):
    config = smoke.get_config("tiny")
    config.checkpoint.every_steps = 4
    config.mesh.data, config.mesh.expert = -1, int(arg)
    config.optim.schedule, config.optim.decay_fraction = "wsd", 0.25
    config.optim.warmup_fraction, config.optim.warmup_tokens = None, 512
    return config

def get_grid(config, arg=None):
    return [{"train.tokens": steps * 256} for steps in (8, 16, 24)]
"""


def enter_trunk(folder, byte_store, expert):
    """(the workdir of a grid that has one trunk, the flags that train it with its branches)"""
    folder.mkdir()
    (folder / "branching.py").write_text(BRANCHING)
    workdir = Workdir(str(folder / "w"))
    file = config_file.load([f"--config={folder / 'branching.py'}:{expert}", f"--config.data.store={byte_store}"])
    manifest, _, _ = from_config.enter(file, workdir, whole_grid=True)
    (trunk,) = jobs.trunks(manifest.runs)
    return workdir, [f"--trunk={trunk.name}", "--branches"]


@pytest.mark.slow
def test_two_processes_train_a_trunk_and_its_branches(byte_store, tmp_path):
    """Stopped on their way and started again."""
    work, flags = enter_trunk(tmp_path / "one", byte_store, 1)
    with Several(flags, tmp_path / "one" / "w", n=1, devices=1) as one:
        assert one.codes() == [0], one.said
    several, flags = enter_trunk(tmp_path / "two", byte_store, 2)
    with Several(flags, tmp_path / "two" / "w") as two:
        two.wait_for_a_checkpoint(of="trunks")
        two.processes[1].send_signal(signal.SIGTERM)
        assert two.codes() == [errors.STOPPED] * 2, two.said
    with Several(flags, tmp_path / "two" / "w") as again:
        assert again.codes() == [0, 0], again.said
    assert again.said[0].count("branches off") == 3
    for run in work.existing_manifest().runs:
        check_equal(several.run_dir(run.name), work.run_dir(run.name), rel=1e-5, steps=run.config.steps)
        told = several.run_dir(run.name).result()
        assert told.n_devices == 4 and told.own_tokens == run.counts.tokens / 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--coordinator=localhost:1"], "together"),
        (["--process_id=0", "--num_processes=2"], "together"),
        (["--coordinator=localhost:1", "--num_processes=2", "--process_id=2"], "--process_id=2: must be from 0 to 1"),
        (["--coordinator=localhost", "--num_processes=2", "--process_id=0"], "--coordinator=localhost: must be HOST"),
        (["--multihost", "--process_id=0"], "not both"),
        (["--multihost", "--distributed_heartbeat_seconds=0"], "at least 1"),
    ],
)
def test_flags_that_do_not_fit_are_refused(arguments, words, capsys, tmp_path):
    code = command.run(train.main, ["--config=configs/smoke.py:tiny", f"--workdir={tmp_path / 'w'}", *arguments])
    said = capsys.readouterr().err
    assert code == errors.BAD_INPUT and words in said and said.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_multihost_without_a_pod_is_refused(verb, tmp_path):
    done = verb("train", "--config=configs/smoke.py:tiny", f"--workdir={tmp_path / 'w'}", "--multihost")
    assert done.returncode == errors.BAD_INPUT and "this host knows of no pod" in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_four_processes_killed_one_at_a_time_train_what_one_trains(flags, one, tmp_path):
    """Each is killed in its turn, the first too; the others end, and four go on from the newest checkpoint."""
    kills = 0
    for victim in (3, 0):
        with Several(flags, tmp_path / "four", n=4, devices=1) as four:
            four.wait_for_a_checkpoint(beyond=four.newest_step)
            four.processes[victim].kill()
            codes = four.codes()
        assert codes[victim] == -signal.SIGKILL
        others = [code for i, code in enumerate(codes) if i != victim]
        assert not {errors.BAD_INPUT, errors.DIVERGED, errors.STOPPED} & set(others), four.said
        kills += 0 not in others
    assert kills  # a kill that comes after the last step finds a finished run
    with Several(flags, tmp_path / "four", n=4, devices=1) as four:
        assert four.codes() == [0] * 4, four.said
    check_equal(four.folder, one, rel=1e-5)
    run = four.folder.run_record()
    assert run.mesh == {"replica": 1, "data": 2, "expert": 2} and four.folder.result().n_devices == 4


@pytest.mark.slow
def test_float64_goes_on_on_another_mesh_and_number_of_processes(flags, tmp_path):
    """Fifty steps on two processes and four devices, fifty on one device: within 1e-10 of a hundred on one."""
    longer = [*flags, "--config.train.tokens=25600", "--config.model.compute_dtype=float64"]
    one_device = [f for f in longer if "mesh" not in f]
    with Several(one_device, tmp_path / "one", n=1, devices=1, JAX_ENABLE_X64="true") as alone_64:
        assert alone_64.codes() == [0], alone_64.said
    every = "--config.checkpoint.every_steps=10"
    with Several([*longer, every], tmp_path / "changed", JAX_ENABLE_X64="true") as two:
        two.wait_for_a_checkpoint(beyond=40)
        two.processes[0].send_signal(signal.SIGTERM)
        assert two.codes() == [errors.STOPPED] * 2, two.said
    stopped_at = two.newest_step
    assert 50 <= stopped_at < 100
    with Several([*one_device, every], tmp_path / "changed", n=1, devices=1, JAX_ENABLE_X64="true") as changed:
        assert changed.codes() == [0], changed.said
    assert f"goes on at step {stopped_at} of 100" in changed.said[0]
    lines, others = changed.folder.read_metrics(), alone_64.folder.read_metrics()
    assert [line["step"] for line in lines] == [line["step"] for line in others] == list(range(100))
    for line, reference in zip(lines, others, strict=True):
        assert line["loss"] == pytest.approx(reference["loss"], rel=1e-10), line["step"]
    assert changed.folder.result().eval_loss == pytest.approx(alone_64.folder.result().eval_loss, rel=1e-6)
