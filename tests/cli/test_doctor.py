"""doctor: each thing that would fail is found, with what to do; nothing is changed, and no cloud is asked."""

import json
import os
import shutil
import sys
import threading

import pytest

from moe_jax import errors
from moe_jax.cli import doctor
from moe_jax.cli.checks import Finding, clients, machine, sweep
from moe_jax.sweep.launchers import xpk
from tests import synthetic_sweep
from tests.hand_edits import sealed_text

TINY = "--config=configs/smoke.py:tiny"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """fake("gcloud", "what it prints", code=0): a program of this name, the only ones on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(clients, "_ADC", tmp_path / "adc.json")
    monkeypatch.setattr(xpk, "client_path", lambda: "xpk")  # also where .venv-xpk has the real one

    def make(name: str, prints: str, code: int = 0) -> None:
        program = folder / name
        program.write_text(f"#!{sys.executable}\nprint({prints!r})\nraise SystemExit({code})\n")
        program.chmod(0o755)

    return make


def named(findings) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def test_a_sound_machine_and_sweep_are_said_to_be_so(verb, byte_store, tmp_path):
    work = tmp_path / "new" / "w"
    done = verb("doctor", TINY, f"--config.data.store={byte_store}", f"--workdir={work}", "--launcher=local")
    assert done.returncode == errors.DONE, done.stdout + done.stderr
    said = {line.split()[1]: line.split()[0] for line in done.stdout.splitlines()[:-1] if line[0] != " "}
    wanted = ("python", "packages", "devices", "config", "store", "workdir", "sweep", "space")
    assert {said[what] for what in wanted} == {"ok"}
    assert done.stdout.splitlines()[-1].endswith("0 fail")
    assert not (tmp_path / "new").exists()  # it was asked about, not made


def test_what_would_fail_ends_with_1_and_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(machine, "devices", lambda: Finding("ok", "devices", "1 × cpu"))
    flags = [TINY, f"--config.data.store={tmp_path}/none", f"--workdir={tmp_path}", "--launcher=local"]
    assert doctor.main(flags) == errors.FAILED
    said = capsys.readouterr().out
    assert f"→ make it: moe-jax prepare {TINY}" in said and said.splitlines()[-1].endswith("1 fail")


def test_versions_that_setup_py_does_not_allow_are_named(monkeypatch):
    monkeypatch.setattr(
        machine.importlib.metadata, "requires", lambda name: ["jax<0.1", "nonesuch>=1", 'spare; extra=="y"']
    )
    found = machine.packages()
    assert found.state == "fail" and "is not <0.1" in found.says and "nonesuch is missing" in found.says
    assert "spare" not in found.says
    monkeypatch.setattr(machine, "_metadata", lambda field: ">=3.99")
    assert machine.python().state == "fail"


def test_devices_that_fail_or_do_not_answer(monkeypatch):
    monkeypatch.setattr(machine, "_LIST_DEVICES", "raise RuntimeError('no TPU')")
    found = machine.devices()
    assert found.state == "fail" and found.says.endswith("no TPU")
    monkeypatch.setattr(machine, "_LIST_DEVICES", "import time; time.sleep(60)")
    monkeypatch.setattr(machine, "_DEVICE_SECONDS", 0.5)
    assert "did not answer within" in machine.devices().says


def test_code_without_a_commit_cannot_be_sent(monkeypatch):
    clean = "1a" * 20
    for commit, launcher, state in [
        (None, None, "warn"), (None, "queued-resources", "fail"), (clean + "+", "xpk", "warn"), (clean, None, "ok")
    ]:  # fmt: skip
        monkeypatch.setattr(machine.provenance, "git_commit", lambda commit=commit: commit)
        assert machine.commit(launcher).state == state


def test_a_config_that_is_refused_is_a_finding(tmp_path):
    (found,) = sweep.findings(["--config=configs/smoke.py", "--config.moe.granularity=3"], None, None)
    assert found.state == "fail" and "config.moe.granularity" in found.says


def test_a_store_that_holds_too_little_or_is_damaged(byte_store, tmp_path):
    args = [TINY, f"--config.data.store={byte_store}", "--config.eval.sequences=1000000"]
    found = named(sweep.findings(args, None, None))["store"]
    assert found.state == "fail" and "8 runs will not start" in found.says and "eval.sequences" in found.says

    broken = tmp_path / "store"
    shutil.copytree(byte_store, broken)
    shards = [p for p in (broken / "heldout").rglob("*") if p.is_file() and p.name != "zarr.json"]
    for shard in shards:
        shard.write_bytes(shard.read_bytes()[:-100])
    found = named(sweep.findings([TINY, f"--config.data.store={broken}"], None, None))["store"]
    assert found.state == "fail" and "heldout tokens cannot be read" in found.says


def test_a_workdir_of_another_grid_or_a_damaged_one(byte_store, tmp_path):
    work, _ = synthetic_sweep.make(tmp_path / "w")
    args = [TINY, f"--config.data.store={byte_store}"]
    found = named(sweep.findings(args, str(work.path), None))
    assert found["sweep"].state == "fail" and "another token store" in found["sweep"].says
    assert named(sweep.findings([], str(work.path), None))["sweep"].says.endswith("27 runs")
    (tmp_path / "w" / "sweep.json").write_text("{")
    found = named(sweep.findings([], str(work.path), None))
    assert found["sweep"].state == "fail" and found["sweep"].do == "move it away"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ('{"runs": [{"name": "a"}], "totals": {}}', "ok"), ("{}", "fail"), ('{"runs": [1], "totals": {}}', "fail"),
        ('{"runs": [{"name": 1}], "totals": {}}', "fail"), ('{"runs": [{"name": "a"}]}', "fail"),
        ('{"runs": {}, "totals": {}}', "fail"), ("[]", "fail"),
    ],
)  # fmt: skip
def test_a_plan_that_is_none(tmp_path, text, state):
    (tmp_path / "plan.json").write_text(text if text == "[]" else sealed_text(json.loads(text)))
    found = sweep.plan(str(tmp_path))
    assert found.state == state and str(tmp_path) in found.says and (found.do == "") == (state == "ok")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_workdir_without_rights(tmp_path):
    tmp_path.chmod(0o500)
    assert sweep.probe(str(tmp_path / "w")).state == "fail"


def test_a_workdir_under_a_file_cannot_be_written(tmp_path):
    (tmp_path / "f").write_text("")
    found = sweep.probe(str(tmp_path / "f" / "w"))
    assert found.state == "fail" and "cannot be written" in found.says


def test_the_probe_is_deleted_and_silence_has_an_end(tmp_path):
    assert sweep.probe(str(tmp_path)).state == "ok" and not list(tmp_path.iterdir())
    silent = threading.Event()
    found = sweep.within(0.2, silent.wait, lambda why: Finding("fail", "workdir", why))
    assert "no answer" in found.says
    silent.set()


def test_checkpoints_that_the_disk_cannot_hold(byte_store, tmp_path, monkeypatch):
    args = [TINY, f"--config.data.store={byte_store}"]
    assert named(sweep.findings(args, str(tmp_path), None))["space"].state == "ok"
    args += ["--config.checkpoint.keep=1000000000000"]
    assert named(sweep.findings(args, str(tmp_path), None))["space"].state == "fail"


def test_jobs_elsewhere_do_not_see_this_disk(byte_store, tmp_path):
    args = [TINY, f"--config.data.store={byte_store}"]
    found = named(sweep.findings(args, str(tmp_path), "xpk"))["paths"]
    assert found.state == "warn" and str(tmp_path) in found.says
    assert "paths" not in named(sweep.findings(args, str(tmp_path), "local"))


def test_clients_that_are_missing_fail_only_where_they_are_needed(fake):
    found = named(clients.findings("xpk"))
    assert {found[what].state for what in ("kubectl", "gke-gcloud-auth-plugin", "gcloud")} == {"fail"}
    assert found["docker"].state == "warn" and "account" not in found
    assert all(finding.do for finding in found.values())
    assert {finding.state for finding in clients.findings(None)} == {"warn"}
    assert [finding.what for finding in clients.findings("queued-resources")] == ["gcloud"]


def test_clients_that_are_there(fake, tmp_path):
    for name in ("kubectl", "gke-gcloud-auth-plugin", "docker"):
        fake(name, f"{name} 1.2.3\nmore")
    fake("gcloud", "Your active configuration is: [default]\nme@example.com")
    (tmp_path / "adc.json").write_text("{}")
    found = named(clients.findings("xpk"))
    assert found["kubectl"] == Finding("ok", "kubectl", "kubectl 1.2.3")
    assert found["account"].says == "me@example.com" and found["credentials"].state == "ok"
    fake("gcloud", "(unset)")
    found = named(clients.findings("queued-resources"))
    assert found["account"].state == "fail" and found["account"].do == "gcloud auth login"
    assert found["project"].state == "warn"
    fake("kubectl", "broken", code=1)
    assert "does not answer" in named(clients.findings("xpk"))["kubectl"].says


def test_hostile_text_in_a_finding_does_not_drive_the_terminal(capsys):
    doctor._show([Finding("fail", "x", "a\x1b[31mb\nc [red]d", "e\rf")])
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\r" not in out and "[red]d" in out and len(out.splitlines()) == 2
