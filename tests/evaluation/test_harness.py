"""lm-evaluation-harness with a task of local files gives the numbers of our own tasks, from the same requests."""

import importlib.util
import json
import subprocess
import sys

import pytest
from etils import epath

from moe_jax.cli import command, evaluate
from moe_jax.sweep.rundir import RunDir
from tests.conftest import child_environment
from tests.evaluation.exports import hf_config
from tests.evaluation.tasks.made_requests import lines, made_set, write_wheel
from tests.evaluation.tasks.test_evaluate_tasks import trained_on
from tests.run_folders import make_run

MADE = made_set(30)
TASK = """
task: local_qa
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {file}}}}}
validation_split: validation
output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
doc_to_choice: choices
doc_to_target: gold
target_delimiter: ""
num_fewshot: 0
metric_list: [{{metric: acc}}]
"""

needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm_eval is not installed: pip install 'moe_jax[harness]'"
)


def write_task(folder):
    """MADE as a task of the harness, in files of the folder; the folder with the task's file."""
    documents = [
        {"context": d.requests[0][0], "choices": [answer for _, answer in d.requests], "gold": d.gold}
        for d in MADE.documents
    ]
    (folder / "qa.jsonl").write_text("\n".join(map(json.dumps, documents)))
    tasks = folder / "tasks"
    tasks.mkdir()
    (tasks / "local_qa.yaml").write_text(TASK.format(file=folder / "qa.jsonl"))
    return tasks


def without_network(folder):
    return {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")}


@pytest.mark.slow
@needs_harness
def test_the_harness_gives_our_numbers(words_store, tmp_path, verb):
    folder = trained_on(words_store, tmp_path / "w")
    tasks, offline = write_task(tmp_path), without_network(tmp_path)
    wheel = write_wheel(tmp_path / "r.whl", {("made", "v"): lines(MADE)})

    flags = [f"--workdir={folder.path}", "--harness=local_qa", f"--harness_tasks={tasks}"]
    done = verb("evaluate", *flags, **offline)
    assert done.returncode == 0, done.stderr
    done = verb("evaluate", f"--workdir={folder.path}", "--tasks=made", f"--requests={wheel}")
    assert done.returncode == 0, done.stderr
    theirs, ours = RunDir(folder.path).evaluations()
    assert (theirs.of, ours.of) == ("lm_eval_local_qa", "made")
    assert theirs.values["acc"] == ours.values["accuracy"]
    assert theirs.values["acc_stderr"] == pytest.approx(ours.values["accuracy_stderr"], rel=1e-12)
    assert theirs.about["documents"] == 30 and theirs.about["harness"].startswith("lm_eval ")

    done = verb("evaluate", f"--workdir={folder.path}", "--harness=local_qq", f"--harness_tasks={tasks}", **offline)
    assert done.returncode == 2 and "has no such task" in done.stderr and "Traceback" not in done.stderr


# What the harness itself makes of an exported folder, in a process of its own.
OF_THE_EXPORT = """
import json, sys
import lm_eval
from lm_eval.tasks import TaskManager
folder, tasks = sys.argv[1:]
found = lm_eval.simple_evaluate(
    model="hf", model_args={"pretrained": folder, "dtype": "float32"}, tasks=["local_qa"],
    task_manager=TaskManager(include_path=tasks), bootstrap_iters=0, log_samples=True, device="cpu",
)
scores = [[score for score, _ in sample["filtered_resps"]] for sample in found["samples"]["local_qa"]]
print(json.dumps({"acc": found["results"]["local_qa"]["acc,none"], "scores": scores}))
"""


@pytest.mark.slow
@needs_harness
def test_the_harness_own_model_of_an_export_gives_our_numbers(words_store, tmp_path, verb):
    for package in ("transformers", "accelerate"):
        pytest.importorskip(package, reason=f"{package}, which the harness' own model needs, is not installed")
    make_run(tmp_path / "r", hf_config("model.qk_norm=head", "data.sequence_length=256"), words_store)
    write_task(tmp_path)
    wheel = write_wheel(tmp_path / "r.whl", {("made", "v"): lines(MADE)})
    done = verb("evaluate", f"--workdir={tmp_path / 'r'}", "--tasks=made", f"--requests={wheel}")
    assert done.returncode == 0, done.stderr
    done = verb("export", f"--workdir={tmp_path / 'r'}", "--to=hf", f"--out={tmp_path / 'hf_model'}")
    assert done.returncode == 0, done.stderr
    command_line = [sys.executable, "-c", OF_THE_EXPORT, str(tmp_path / "hf_model"), str(tmp_path / "tasks")]
    done = subprocess.run(
        command_line, env=child_environment(1, **without_network(tmp_path)), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.splitlines()[-1])
    (ours,) = RunDir(epath.Path(tmp_path / "r")).evaluations()
    assert f"{theirs['acc']:.3f}" == f"{ours.values['accuracy']:.3f}"
    _, *batches = (tmp_path / "r/evaluations/task-made.scores.jsonl").read_text().splitlines()
    scores = {}
    for batch in map(json.loads, batches):
        scores |= dict(zip(batch["requests"], batch["log_likelihood"], strict=True))
    found = [score for document in theirs["scores"] for score in document]
    assert found == pytest.approx([scores[i] for i in range(len(scores))], rel=1e-4)


def test_without_the_harness_it_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert command.run(evaluate.main, [f"--workdir={tmp_path}", "--harness=sciq"]) == 2
    assert "pip install 'moe_jax[harness]'" in capsys.readouterr().err
