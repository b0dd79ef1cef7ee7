"""The how-to pages do what they say: their files are written, and their commands run in a folder of their own."""

import csv
import json
import math
import re
import subprocess
import sys
import time

import pytest

from moe_jax.sweep.launchers import registry
from tests.conftest import ROOT, child_environment
from tests.docs.pages import code_of

HOWTO = ROOT / "docs" / "howto"
# -P: the current folder is not on Python's path, as it is not for the command `moe-jax`.
PROGRAMS = f'moe-jax() {{ "{sys.executable}" -P -m moe_jax "$@"; }}; python() {{ "{sys.executable}" "$@"; }}; '


class Page:
    """A page's files, written to a folder, and its commands there."""

    def __init__(self, name, folder):
        self.folder, self.code = folder, code_of((HOWTO / f"{name}.md").read_text(encoding="utf-8"))
        for file, content in self.code.files.items():
            (folder / file).write_text(content, encoding="utf-8")

    def try_command(self, command):
        environment = child_environment(PYTHONPATH=str(ROOT))
        return subprocess.run(
            ["bash", "-c", PROGRAMS + command], cwd=self.folder, env=environment, capture_output=True, text=True,
            timeout=600, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self):
        """Runs all commands; returns what each printed."""
        printed = []
        for command in self.code.commands:
            done = self.try_command(command)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            printed.append(done.stdout)
        return printed

    def losses(self, workdir):
        """The losses of the logged steps of the one run of a workdir."""
        [metrics] = self.folder.glob(f"{workdir}/runs/*/metrics.jsonl")
        return [json.loads(line)["loss"] for line in metrics.read_text().splitlines()]


@pytest.fixture
def page(request, tmp_path):
    return Page(request.param, tmp_path)


def a_page(name):
    return pytest.mark.parametrize("page", [name], indirect=True, ids=[name])


def test_every_page_is_tested():
    pages = {"config", "optimizer", "router", "law", "launcher", "corpus", "inspect", "evaluate", "learning_rate"}
    assert {path.stem for path in HOWTO.glob("*.md")} == pages


@pytest.mark.slow
@a_page("optimizer")
def test_optimizer(page):
    planned, *_ = page.run()
    assert "8 runs:" in planned
    with (page.folder / "runs/my_optimizers/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and all(row["status"] == "done" for row in rows)
    # All learn something: less than a uniform guess of a byte.
    assert all(float(row["eval_loss"]) < math.log(256) - 0.5 for row in rows)


@pytest.mark.slow
@a_page("config")
def test_config(page):
    whole, smoke, *_ = page.run()
    assert "9 runs:" in whole and "2 runs:" in smoke
    losses = page.losses("runs/one")
    assert losses[-1] < losses[0]
    with (page.folder / "runs/my_sweep/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and all(row["status"] == "done" for row in rows)
    rates = [json.loads(path.read_text())["config"]["optim"]["learning_rate"]
             for path in sorted(page.folder.glob("runs/my_sweep/runs/*/run.json"))]  # fmt: skip
    assert len(set(rates)) == 2


@a_page("router")
def test_router(page):
    page.run()
    losses = page.losses("runs/router")
    assert len(losses) == 10 and losses[-1] < losses[0]
    [run] = page.folder.glob("runs/router/runs/*/run.json")
    assert json.loads(run.read_text())["config"]["moe"]["router"] == "my_router:sigmoid"
    with (page.folder / "my_router.py").open("a") as file:
        file.write("# edited\n")
    refused = page.try_command(page.code.commands[-1])
    assert refused.returncode == 2 and "another config (the source of its router" in refused.stderr


@pytest.mark.slow
@a_page("law")
def test_law(page):
    page.run()
    law = json.loads((page.folder / "law.json").read_text())
    planted = {"c": 1.7, "A": 2e7, "B": 2e9, "alpha": 0.3}
    assert set(law["coefficients"]) == set(planted)
    for name, value in planted.items():
        assert math.isclose(law["coefficients"][name], value, rel_tol=0.1), name
    printed = re.findall(r"^    (\w+) +([\d.e+]+)  ", (HOWTO / "law.md").read_text(), re.MULTILINE)
    assert {name: pytest.approx(float(value), rel=1e-3) for name, value in printed} == law["coefficients"]
    assert (page.folder / "optimum.csv").exists() and (page.folder / "prediction.csv").exists()


@a_page("learning_rate")
def test_learning_rate(page):
    _, fitted, planned = page.run()
    law = json.loads((page.folder / "step_law_lr.json").read_text())
    for name, value in {"a": 12, "b": -0.5, "c": -0.1}.items():
        low, high = law["intervals"][name]
        assert low <= value <= high, name
    printed = re.findall(r"^    (\w) +([-\d.e]+)  ", (HOWTO / "learning_rate.md").read_text(), re.MULTILINE)
    assert {name: pytest.approx(float(value), rel=1e-3) for name, value in printed} == law["coefficients"]
    assert "9 cells of 9 with a best learning_rate" in fitted
    said = re.search(r"^    (optim.learning_rate by .*)$", (HOWTO / "learning_rate.md").read_text(), re.MULTILINE)
    assert said[1] in planned


@pytest.mark.slow
@a_page("launcher")
def test_launcher(page):
    _, dry, submitted, status = page.run()
    assert "nohup nice -n 0" in dry and "[1/1]" in submitted and "1 run" in status
    again = page.try_command(page.code.commands[2])
    assert again.returncode == 0 and "there is nothing to submit" in again.stdout
    deadline = time.monotonic() + 600
    while not (results := list(page.folder.glob("runs/bg/runs/*/result.json"))):
        logs = [path.read_text() for path in page.folder.glob("runs/bg/logs/*/log")]
        assert time.monotonic() < deadline, logs
        time.sleep(0.2)
    assert json.loads(results[0].read_text())["status"] == "done"
    assert "background" not in registry.MODULES


@a_page("launcher")
def test_the_launcher_starts_a_job_once(page, monkeypatch):
    monkeypatch.syspath_prepend(str(page.folder))
    import my_launcher

    launcher = my_launcher.Background(str(page.folder / "w"), 0)
    monkeypatch.setattr(launcher, "batch_name", lambda batch: "job")
    monkeypatch.setattr(launcher, "training_command", lambda submission: ["true"])
    assert launcher.submit_batch([None]) is True
    assert launcher.submit_batch([None]) is False


@pytest.mark.slow
@a_page("corpus")
def test_corpus(page):
    page.run()
    stores = {path.name for path in (page.folder / "stores").iterdir()}
    assert stores >= {"my_texts_byte", "my_texts_bpe", "my_mixture"}
    losses = page.losses("runs/my_corpus")
    assert len(losses) == 10 and losses[-1] < losses[0]


@pytest.mark.slow
@a_page("inspect")
def test_inspect(page):
    *_, drawn, greedy, inspected, reported = page.run()
    assert drawn.startswith("def main(") and greedy.startswith("import ") and len(greedy) > len("import \n")
    assert "load of the 16 experts" in inspected and "figures" in reported
    [written] = page.folder.glob("runs/look/runs/*/routing.json")
    record = json.loads(written.read_text())
    assert all(sum(layer["load"]) == record["tokens"] * record["top_k"] for layer in record["trained"])
    assert list(page.folder.glob("runs/look/figures/routing_*.png"))


@pytest.mark.slow
@a_page("evaluate")
def test_evaluate(page):
    pytest.importorskip("transformers", reason="transformers (extra `bench`) is not installed")
    page.run()
    [run] = page.folder.glob("runs/hf/runs/*")
    assert {path.name for path in (run / "evaluations").glob("task-*.json")} == {
        f"task-{task}_rc.json" for task in ("next_line", "next_word", "line_end")
    }
    with (page.folder / "runs/hf/results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert 0 <= float(row["next_line_rc_accuracy"]) <= 1 and float(row["line_end_rc_bits_per_byte"]) > 0
    assert float(row["eval_loss"]) < math.log(4096) - 1
    assert "next_line" in (page.folder / "runs/hf/report.html").read_text(encoding="utf-8")
