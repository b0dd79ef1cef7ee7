"""Hosts that each work through one list of jobs (tpu_scripts/work_queue.sh) never train different runs together."""

import signal
import socket
import subprocess
import sys

import pytest

from moe_jax import errors
from moe_jax.cli import train
from moe_jax.sweep import jobs
from moe_jax.sweep.launchers import restarts
from moe_jax.training import processes
from tests import synthetic_sweep as synthetic
from tests.conftest import ROOT, child_environment


@pytest.mark.parametrize("status", ["done", "diverged"])
def test_a_finished_run_waits_for_no_other_host(tmp_path, status):
    """They may be at the next one already. Joining would fail here, where there is no pod."""
    work, planned = synthetic.make(tmp_path / "w")
    result = synthetic.result_of(planned[0]) if status == "done" else synthetic.diverged_result_of(planned[0], 5)
    synthetic.finish(work, planned[0], result)
    code = train.main([f"--workdir={work.path}", f"--run={planned[0].name}", "--multihost"])
    assert code == {"done": errors.DONE, "diverged": errors.DIVERGED}[status]


WSD = {"optim.schedule": "wsd", "optim.decay_fraction": 0.2, "optim.warmup_fraction": None}


@pytest.mark.parametrize("kind", ["trunk", "pack"])
def test_a_finished_trunk_or_pack_waits_for_no_other_host(tmp_path, kind, monkeypatch):
    def join(*_):
        raise errors.UserError("it would wait for the others")

    monkeypatch.setattr(processes, "join", join)
    cells = {
        "trunk": [WSD | {"optim.warmup_tokens": 9_600, "train.tokens": tokens} for tokens in (96_000, 192_000)],
        "pack": [{"seed": seed, "sweep.pack": 2} for seed in (0, 1)],
    }[kind]
    work, planned = synthetic.make(tmp_path / "w", cells)
    (job,) = jobs.jobs_of(planned, apart=False)
    arguments = [f"--workdir={work.path}", *job.flags, "--multihost"]
    assert job.flags[0].startswith(f"--{kind}=")
    synthetic.finish(work, planned[0])
    with pytest.raises(errors.UserError, match="it would wait"):  # one is left
        train.main(arguments)
    folder = synthetic.finish(work, planned[1])
    assert train.main(arguments) == errors.DONE
    folder.write_result(synthetic.result_of(planned[1], config_hash="0" * 16))  # another's: the usual way refuses it
    with pytest.raises(errors.UserError, match="it would wait"):
        train.main(arguments)
    folder.write_result(synthetic.diverged_result_of(planned[1], 5))
    assert train.main(arguments) == errors.DIVERGED


@pytest.mark.slow
def test_hosts_at_different_runs_start_again(byte_store, tmp_path, verb):
    flags = ["--config=configs/smoke.py:tiny", f"--config.data.store={byte_store}", f"--workdir={tmp_path}"]
    for tokens in (2048, 4096):  # enters both in the manifest, one after the other
        assert verb("train", *flags, f"--config.train.tokens={tokens}").returncode == errors.DONE
    (tmp_path / "aside").mkdir()
    (tmp_path / "runs").rename(tmp_path / "aside" / "runs")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    hosts = []
    for i, tokens in enumerate(("2k", "4p1k")):
        arguments = [
            sys.executable, "-m", "moe_jax", "train", f"--workdir={tmp_path}", f"--run=n3p1k-d{tokens}-g1-s0",
            f"--coordinator=127.0.0.1:{port}", "--num_processes=2", f"--process_id={i}",
            "--distributed_heartbeat_seconds=10",
        ]  # fmt: skip
        hosts.append(
            subprocess.Popen(
                arguments,
                cwd=ROOT,
                env=child_environment(2),
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        said = hosts[1].communicate(timeout=240)[1]
        hosts[0].communicate(timeout=240)
        assert "the other processes are not at n3p1k-d4p1k-g1-s0" in said
        # 75, or SIGABRT where it waited for the other one at its end: every launcher starts both again.
        assert hosts[1].returncode in (errors.STOPPED, -signal.SIGABRT)
        assert hosts[0].returncode == -signal.SIGABRT
        assert all(restarts.is_restarted_after(host.returncode) for host in hosts)
    finally:
        for host in hosts:
            host.kill()
            host.communicate()
    assert not list(tmp_path.glob("runs/*/result.json"))
