"""Submitting to and watching a sweep on an object store, by an emulator: files that others write are seen at once.

What it cannot show: that of two submitters one is refused (the emulator ignores ifGenerationMatch; tests/
test_submission.py looks at what is asked of the service).
"""

import json
import re
import shlex
import subprocess
import sys
import textwrap

import pytest

from moe_jax.errors import DONE, FAILED
from tests.conftest import ROOT, child_environment
from tests.fake_clients import FakeClient
from tests.gcs import emulator
from tests.submit_verb import names

pytestmark = pytest.mark.slow

WORK, STORE = "gs://bucket/a sweep", "gs://bucket/stores/stdlib"
FLAGS = [
    "--config=configs/smoke.py:tiny", f"--config.data.store={STORE}", f"--workdir={WORK}", "--launcher=xpk",
    "--project=p", "--zone=z", "--cluster=c", "--tpu_type=v5litepod-4", "--docker_image=i",
]  # fmt: skip

# One process looks, starts another that changes what was looked at, and looks again.
WATCH = """
import subprocess, sys
from moe_jax.sweep.snapshot import take_snapshot
from moe_jax.sweep.workdir import Workdir

work = Workdir(sys.argv[1])
print({str(state): n for state, n in take_snapshot(work).totals.items()})
run = work.existing_manifest().runs[0].name
for change in ("folder.begin_attempt()", "folder.end_attempt(1, 1, 'out of memory')"):
    code = f"from moe_jax.sweep.workdir import Workdir; folder = Workdir({sys.argv[1]!r}).run_dir({run!r}); {change}"
    subprocess.run([sys.executable, "-c", code], check=True)
    print({str(state): n for state, n in take_snapshot(work).totals.items()})
"""

FINISH = """
import sys
from moe_jax.sweep.workdir import Workdir
from tests import synthetic_sweep

work = Workdir(sys.argv[1])
synthetic_sweep.finish(work, work.existing_manifest().run(sys.argv[2]))
"""
LEFT = """
import sys
from moe_jax.sweep.workdir import Workdir

work = Workdir(sys.argv[1])
for parent in (work.path / "aside", work.path / "runs"):
    folders = [f for f in parent.iterdir() if f.name.startswith(sys.argv[2])] if parent.exists() else []
    print(sorted(path.name for folder in folders for path in folder.iterdir()), [*work.asides()] == [sys.argv[2]])
"""
RUN_FILES = "['attempts', 'metrics.jsonl', 'result.json', 'run.json']"


def documented():
    """(flags of the submit in docs/tpu.md, what the page says that it prints, without the lines that it leaves out)"""
    section = (ROOT / "docs" / "tpu.md").read_text().partition("\n## Submitting")[2]
    blocks = re.findall(r"\n\n((?:    .*\n)+)", section)
    command, said = (textwrap.dedent(block).replace(" \\\n  ", " ") for block in blocks[:2])
    program, verb, *flags = shlex.split(command)
    assert (program, verb) == ("moe-jax", "submit")
    return flags, said.removesuffix("…\n")


def test_a_sweep_on_an_object_store(verb, tmp_path, monkeypatch):
    xpk = FakeClient(tmp_path, "xpk")
    script = tmp_path / "submit.py"  # with the fake, also where .venv-xpk has the real one
    script.write_text(
        "import sys\nfrom moe_jax.cli import command, submit\nfrom moe_jax.sweep.launchers import xpk\n"
        "xpk.client_path = lambda: 'xpk'\nsys.exit(command.run(submit.main))\n"
    )
    with emulator() as there:
        environment = child_environment(**there) | {"PATH": xpk.path, "PYTHONPATH": str(ROOT)}

        def run(*words, code=DONE):
            done = subprocess.run(
                [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
            )
            assert done.returncode == code, done.stdout + done.stderr
            return done.stdout + (done.stderr if code else "")

        run("-m", "moe_jax", "prepare", f"--store={STORE}")
        asked, said = documented()
        printed = run(script, *asked)
        assert printed.startswith(said) and printed.count("\nxpk workload create ") == 8
        printed = run(script, *FLAGS, "--dry_run")
        assert printed.count("\nxpk workload create ") == 8 and not xpk.calls
        run(script, *FLAGS, "--yes")
        assert "left alone: 8 queued" in run(script, *FLAGS, "--yes")
        assert len(names(xpk)) == len(set(names(xpk))) == 8
        seen = json.loads(run("-m", "moe_jax", "status", f"--workdir={WORK}", "--json"))
        assert [line["job"] for line in seen["runs"]] == names(xpk)
        watched = run("-c", WATCH, WORK).splitlines()
        assert watched == ["{'queued': 8}", "{'queued': 7, 'running': 1}", "{'queued': 7, 'failed': 1}"], watched
        for only, said in (("n768-*", "plan: "), ("n3p1k-*", "the old plan was moved to ")):
            plan = ["plan", FLAGS[0], f"--config.data.store={STORE}", f"--workdir={WORK}", f"--only={only}"]
            assert said in run("-m", "moe_jax", *plan)
        assert "--retry_failed submits it again" in run(script, *FLAGS, "--yes")
        run(script, *FLAGS, "--yes", "--retry_failed")
        assert names(xpk)[8:] == [f"{names(xpk)[0]}-r1"]
        done = seen["runs"][1]["name"]
        run("-c", FINISH, WORK, done)
        xpk.answers("no quota\n", code=1)
        assert "no quota" in run(script, *FLAGS, "--yes", f"--rerun={done}", code=FAILED)
        assert run("-c", LEFT, WORK, done).splitlines() == ["[] False", f"{RUN_FILES} False"]  # put back
        xpk.answers()
        run(script, *FLAGS, "--yes", f"--rerun={done}")
        assert names(xpk)[10:] == [f"{names(xpk)[1]}-r1"]
        assert run("-c", LEFT, WORK, done).splitlines() == [f"{RUN_FILES} True", "[] True"]
