"""The real xpk takes what submit builds: its JobSet has the command, the chips and the restarts that were meant.

xpk is in an environment of its own (make xpk). Its --dry-run still asks gcloud and kubectl for nothing, but wants a
manifest file; the programs that it might call are fakes here that fail.
"""

import re
import subprocess

import pytest
import yaml

from moe_jax.cli import command, submit
from moe_jax.errors import DONE
from tests.conftest import ROOT
from tests.data_stores import make_store
from tests.fake_clients import FakeClient
from tests.submit_verb import HOSTILE, as_kubernetes_does

XPK = ROOT / ".venv-xpk" / "bin" / "xpk"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not XPK.exists(), reason="xpk is not installed: make xpk"),
]


@pytest.fixture
def jobset(tmp_path, capsys, monkeypatch):
    """jobset(*flags, workdir=…) -> the JobSet that xpk makes of submit's first command."""
    make_store(tmp_path / "store")
    failing = [FakeClient(tmp_path, name) for name in ("gcloud", "kubectl", "docker")]
    for client in failing:
        client.answers("not here", code=1)

    def make(*flags, workdir):
        argv = [
            "--config=configs/smoke.py:tiny", f"--config.data.store={tmp_path / 'store'}", f"--workdir={workdir}",
            "--launcher=xpk", "--project=my-project", "--zone=us-east5-a", "--cluster=pods", "--shared_filesystem",
            "--dry_run", *flags,
        ]  # fmt: skip
        capsys.readouterr()
        assert command.run(submit.main, argv) == DONE
        printed = capsys.readouterr().out
        line = printed[printed.index(str(XPK)) :]
        line = line[: line.index(f"\n{XPK}")]  # a command may have several lines
        manifest = tmp_path / "manifest.yaml"
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        # xpk's own: print, and do not look for gcloud and kubectl
        script = f"{line} --dry-run --skip-validation --output-manifest-file={manifest}"
        path = ":".join([str(XPK.parent), *(str(c.bin) for c in failing), "/usr/bin", "/bin"])
        done = subprocess.run(
            ["bash", "-euc", script], env={"HOME": str(home), "PATH": path}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert not any(client.calls for client in failing)
        return yaml.safe_load(manifest.read_text())

    return make


def container(jobset):
    (group,) = jobset["spec"]["replicatedJobs"]
    (only,) = group["template"]["spec"]["template"]["spec"]["containers"]
    return only


def test_a_job_has_its_chips_command_and_restarts(jobset, tmp_path):
    made = jobset(
        "--tpu_type=v5litepod-16", "--num_slices=2", "--docker_image=repo/moe_jax:1", "--max_restarts=9",
        "--grace_seconds=120", "--priority=high", workdir=tmp_path / "w",
    )  # fmt: skip
    name = made["metadata"]["name"]
    assert made["kind"] == "JobSet" and name.endswith("-n768-d2k-g1-s0") and len(name) <= 40
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "multislice-queue"
    assert made["spec"]["failurePolicy"]["maxRestarts"] == 9
    (group,) = made["spec"]["replicatedJobs"]
    job = group["template"]["spec"]
    assert (group["replicas"], job["parallelism"], job["completions"], job["backoffLimit"]) == (2, 4, 4, 0)
    (rule,) = job["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["operator"]) == ("FailJob", "NotIn")
    restarted = set(rule["onExitCodes"]["values"])
    assert restarted >= {1, 75, 137, 134, 143} and not restarted & {0, 2, 3}
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    assert (pod["terminationGracePeriodSeconds"], pod["priorityClassName"]) == (120, "high")
    assert container(made)["image"] == "repo/moe_jax:1"
    assert container(made)["resources"]["limits"] == {"google.com/tpu": 4}
    train = f"python -m moe_jax train --multihost --workdir={tmp_path / 'w'} --run=n768-d2k-g1-s0"
    assert f"(exec env JAX_PLATFORMS=tpu,cpu {train}) & PID=$!;" in container(made)["command"][-1]


@pytest.mark.parametrize("code", [0, 1, 2, 3, 75])
def test_the_containers_script_ends_with_pythons_code(jobset, tmp_path, code):
    """What the kubelet starts: xpk's script around our command. Five seconds are xpk's way of waiting."""
    made = jobset("--tpu_type=v6e-8", "--docker_image=i", workdir=tmp_path / "w")
    python = FakeClient(tmp_path, "python")
    python.answers("trained", code=code)
    words = [as_kubernetes_does(word) for word in container(made)["command"]]
    done = subprocess.run(words, env={"PATH": python.path}, capture_output=True, text=True, timeout=60)
    assert done.returncode == code and "trained" in done.stdout
    assert python.calls == [
        ["-m", "moe_jax", "train", "--multihost", f"--workdir={tmp_path / 'w'}", "--run=n768-d2k-g1-s0"]
    ]


def test_hostile_workdirs_reach_python_unchanged(jobset, tmp_path):
    python = FakeClient(tmp_path, "python")
    workdirs = [str(tmp_path / hostile) for hostile in HOSTILE]
    waiting = []
    for workdir in workdirs:
        made = jobset("--tpu_type=v5p-8", "--docker_image=i", workdir=workdir)
        words = [as_kubernetes_does(word) for word in container(made)["command"]]
        waiting.append(subprocess.Popen(words, cwd=tmp_path, env={"PATH": python.path}, stdout=subprocess.DEVNULL))
    assert [process.wait(60) for process in waiting] == [0] * len(workdirs)
    assert sorted(call[4] for call in python.calls) == sorted(f"--workdir={workdir}" for workdir in workdirs)
    assert not list(tmp_path.rglob("hacked"))


PAGES = "".join((ROOT / page).read_text() for page in ("README.md", "docs/tpu.md", "tpu_scripts/README.md"))
IN_PAGES = set(re.findall(r"--tpu[-_]type=([a-z0-9-]+)", PAGES))


@pytest.mark.parametrize("tpu", sorted({"v4-8", "v5p-32", "v5litepod-64", "v6e-16", *IN_PAGES}))
def test_xpk_knows_the_names_of_slices(jobset, tmp_path, tpu):
    made = jobset(f"--tpu_type={tpu}", "--docker_image=i", workdir=tmp_path / "w")
    assert container(made)["resources"]["limits"]["google.com/tpu"] in (4, 8)
