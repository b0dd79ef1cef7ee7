"""lm-evaluation-harness with a task of local files gives the numbers of our own tasks, from the same requests."""

import importlib.util
import json

import pytest

from moe_jax.cli import command, evaluate
from moe_jax.sweep.rundir import RunDir
from tests.evaluation.tasks.made_requests import lines, made_set, write_wheel
from tests.evaluation.tasks.test_evaluate_tasks import trained_on

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


@pytest.mark.slow
@needs_harness
def test_the_harness_gives_our_numbers(words_store, tmp_path, verb):
    folder = trained_on(words_store, tmp_path / "w")
    documents = [
        {"context": d.requests[0][0], "choices": [answer for _, answer in d.requests], "gold": d.gold}
        for d in MADE.documents
    ]
    (tmp_path / "qa.jsonl").write_text("\n".join(map(json.dumps, documents)))
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "local_qa.yaml").write_text(TASK.format(file=tmp_path / "qa.jsonl"))
    wheel = write_wheel(tmp_path / "r.whl", {("made", "v"): lines(MADE)})

    flags = [f"--workdir={folder.path}", "--harness=local_qa", f"--harness_tasks={tasks}"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
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


def test_without_the_harness_it_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert command.run(evaluate.main, [f"--workdir={tmp_path}", "--harness=sciq"]) == 2
    assert "pip install 'moe_jax[harness]'" in capsys.readouterr().err
