"""A process that trains several jobs one after the other: bits, crashes and logs are those of a process a job."""

import io
import json
import os
import shlex
import signal
import sys
import threading
import warnings
from pathlib import Path

import pytest

from moe_jax.cli import train_jobs
from moe_jax.config import config_file
from moe_jax.progress import Display
from moe_jax.sweep import from_config
from moe_jax.sweep.launchers.local_jobs import LocalJobs
from moe_jax.sweep.workdir import Workdir
from tests import synthetic_sweep as synthetic
from tests.conftest import ROOT, child_environment
from tests.faults import differences, outcome
from tests.hand_edits import sealed_text

# Notes its start and ends each of its jobs as the file `ends` says, a word a job: done (with a result), or dies.
WORKER = """#!/usr/bin/env bash
cd '{folder}'
echo $$ >> starts
log=first
while true; do
    echo x >> jobs
    n=$(wc -l < jobs)
    end=$(sed -n "${{n}}p" ends)
    echo "job $n"
    case $end in
        done) cp "result$n.json" "$(sed -n "${{n}}p" results)"; echo 0 >&0 ;;
        kill) kill -9 $$ ;;
        exit) exit 9 ;;
    esac
    read -r line || exit 0
    echo "$line" >> given
    exec >> "$(printf %s "$line" | sed 's/.*"log": "\\([^"]*\\)".*/\\1/')"
done
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """fake(cells, *ends) -> (states, workdir): a worker whose n-th job, over all processes, ends as ends[n]."""

    def go(cells, *ends):
        work, runs = synthetic.make(tmp_path / "w", cells)
        for i, run in enumerate(runs, start=1):
            (tmp_path / f"result{i}.json").write_text(sealed_text(synthetic.result_of(run).to_json()))
        (tmp_path / "results").write_text("".join(f"{work.run_dir(run.name).result_path}\n" for run in runs))
        (tmp_path / "ends").write_text("".join(f"{end}\n" for end in ends))
        python = tmp_path / "python"
        python.write_text(WORKER.format(folder=tmp_path))
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))
        return LocalJobs(work, runs, 1, Display(io.StringIO())).train(), work

    go.starts = lambda: len((tmp_path / "starts").read_text().split())
    go.given = lambda: [json.loads(line) for line in (tmp_path / "given").read_text().splitlines()]
    return go


SEEDS = [{"seed": seed} for seed in range(4)]


def test_a_process_trains_all_jobs(fake):
    states, work = fake(SEEDS, "done", "done", "done", "done")
    assert [s.state for s in states] == 4 * ["done"] and fake.starts() == 1
    names = [s.name for s in states]
    assert [job["flags"][1] for job in fake.given()] == [f"--run={name}" for name in names[1:]]
    logs = [Path(work.run_dir(name).log).read_text() for name in names]
    assert logs == [f"job {n}\n" for n in (1, 2, 3, 4)]


@pytest.mark.parametrize(("end", "code"), [("kill", -9), ("exit", 9)])
def test_a_crash_ends_only_the_run_in_flight(fake, end, code):
    states, work = fake(SEEDS, "done", end, "done", "done")
    assert [s.state for s in states] == ["done", "failed", "done", "done"] and fake.starts() == 2
    attempts = [work.run_dir(s.name).attempts() for s in states]
    assert [a.exit_code for a in attempts[1]] == [code] and attempts[1][0].sentence == "job 2"
    assert not any(attempts[i] for i in (0, 2, 3))  # the script writes none


def test_a_user_s_router_has_a_process_of_its_own(fake, tmp_path, monkeypatch):
    (tmp_path / "own_router.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    own = {"moe.router": "own_router:Router"}
    states, _ = fake([*SEEDS[:2], own | {"seed": 2}, own | {"seed": 3}], "done", "done", "done", "done")
    assert [s.state for s in states] == 4 * ["done"]
    assert fake.starts() == 2


def test_runs_of_one_shape_come_one_after_the_other(fake):
    """And a process that has compiled many shapes is replaced."""
    wide = [{"model.d_model": 64 * (1 + i % 9), "seed": i // 9} for i in range(18)]
    fake(wide, *18 * ["done"])
    given = [job["flags"][1] for job in fake.given()]
    assert fake.starts() == 2 and len(given) == 16


def test_what_a_job_changes_in_its_process_is_put_back(monkeypatch):
    """Also a warning that is given once is given once a job."""
    environment, hook, filters = dict(os.environ), sys.unraisablehook, list(warnings.filters)
    with train_jobs._as_before():
        monkeypatch.setattr(sys, "unraisablehook", print)
        os.environ["SOMETHING"], os.environ["HOME"] = "1", "/nowhere"
        warnings.simplefilter("ignore")
    assert dict(os.environ) == environment
    assert sys.unraisablehook is hook and warnings.filters == filters


CONFIG = """
from configs import smoke


def get_config(arg=None):
    return smoke.get_config("tiny")


def get_grid(config, arg=None):
    return [
        {"seed": 0},
        {"seed": 1, "train.tokens": 4096 * 4096},  # trains until it is killed
        {"seed": 2, "train.tokens": 4096, "optim.learning_rate": 1e-3, "eval.sequences": 24},
        {"seed": 0, "optim.learning_rate": 2e-3, "train.log_every_steps": 3},
        {"seed": 0, "moe.granularity": 2},
    ]
"""


@pytest.mark.slow
def test_bits_and_crashes_are_those_of_a_process_a_run(byte_store, tmp_path, monkeypatch, verb):
    """One process trains the first run and is killed in the second; the next one trains all others."""
    config = tmp_path / "grid.py"
    config.write_text(CONFIG)
    file = config_file.load([f"--config={config}", f"--config.data.store={byte_store}", "--config.data.repeat=True"])
    warm, fresh = Workdir(str(tmp_path / "warm")), Workdir(str(tmp_path / "fresh"))
    from_config.enter(file, fresh, whole_grid=True)
    runs = from_config.enter(file, warm, whole_grid=True)[0].runs
    environment = {k: v for k, v in child_environment().items() if os.environ.get(k) != v}
    python = tmp_path / "python"
    exports = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in environment.items())
    python.write_text(
        f"#!/bin/sh\necho $$ >> {tmp_path}/starts\n{exports}"
        "unset JAX_NUMPY_RANK_PROMOTION JAX_NUMPY_DTYPE_PROMOTION JAX_DISABLE_MOST_OPTIMIZATIONS\n"
        f'cd {ROOT}\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        jobs, ended = LocalJobs(warm, runs, 1, Display(io.StringIO())), threading.Event()

        def kill():
            while not ended.wait(0.05):
                if warm.run_dir(runs[1].name).heartbeat() is not None:
                    os.kill(jobs._children[0].worker.process.pid, signal.SIGKILL)
                    return

        killer = threading.Thread(target=kill)
        killer.start()
        states = jobs.train()
        ended.set()
        killer.join()
    assert [s.state for s in states] == ["done", "failed", "done", "done", "done"]
    assert states[1].sentence and [a.exit_code for a in warm.run_dir(runs[1].name).attempts()] == [-signal.SIGKILL]
    assert len((tmp_path / "starts").read_text().split()) == 2
    for run in (runs[0], *runs[2:]):
        done = verb("train", f"--workdir={fresh.path}", f"--run={run.name}")
        assert done.returncode == 0, done.stderr
        assert differences(outcome(warm.run_dir(run.name)), outcome(fresh.run_dir(run.name))) == []
        log = Path(warm.run_dir(run.name).log).read_text()
        assert log.splitlines()[-1].startswith(f"{run.name}: done, eval loss")
        assert not any(other.name in log for other in runs if other is not run)
