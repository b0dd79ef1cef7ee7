"""The verb `inspect` writes routing.json, and the report shows it."""

import json

import pytest

from moe_jax import errors
from moe_jax.cli import command, inspect, report
from moe_jax.errors import UserError
from moe_jax.sweep.routing_record import RoutingRecord
from moe_jax.sweep.workdir import Workdir
from tests.data_stores import make_store
from tests.evaluation.trained_run import train_run
from tests.pages import read_page

EXPERT_CHOICE = (
    "--config.moe.router=expert_choice", "--config.moe.softmax=over_experts", "--config.moe.group_sequences=8",
    "--config.moe.load_balance_loss_weight=0.0",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(byte_store, tmp_path_factory):
    return train_run(tmp_path_factory.mktemp("trained"), byte_store, "--config.moe.granularity=2")


def run(folder, capsys, *flags):
    code = command.run(inspect.main, [f"--workdir={folder.path}", *flags])
    return code, *capsys.readouterr()


def test_the_record_is_of_the_checkpoint_and_of_the_first_parameters(trained, capsys):
    code, out, _ = run(trained, capsys)
    assert code == errors.DONE
    for words in ("load of the 16 experts", "before training", "pairs of experts", "tokens of the busiest experts"):
        assert words in out
    record = trained.routing()
    assert (record.step, record.sequences, record.tokens) == (trained.result().steps, 16, 16 * 32)
    assert record.top_k == 2 and record.n_experts == 16 and record.capacity == 8
    for layer in (*record.trained, *record.initial):
        assert sum(layer.load) == record.tokens * record.top_k
        assert layer.dropped_fraction is not None and layer.tokens_without_expert == 0
        assert all(len(tokens) > 0 for tokens in layer.top_tokens.values())
    assert record.trained != record.initial


def test_the_report_shows_it(trained, capsys):
    work = Workdir(str(trained.path.parent.parent))
    assert run(trained, capsys)[0] == errors.DONE
    assert "A layer is named where an expert takes more than 4 times" in read_page(work).text
    assert report.main(["--workdir", str(work.path)]) == errors.DONE
    assert (work.path / "figures" / f"routing_{trained.name}.png").exists()


def test_another_store_and_fewer_windows(trained, capsys, tmp_path):
    make_store(tmp_path / "other")
    code, _, _ = run(trained, capsys, f"--store={tmp_path / 'other'}", "--sequences=3")
    assert code == errors.DONE
    assert trained.routing().sequences == 3 and trained.routing().store["path"] == str(tmp_path / "other")


def test_experts_that_choose(byte_store, tmp_path, capsys):
    folder = train_run(tmp_path / "w", byte_store, *EXPERT_CHOICE)
    code, out, _ = run(folder, capsys)
    assert code == errors.DONE and "all experts have the same load" in out
    record = folder.routing()
    assert record.experts_choose and {len(set(layer.load)) for layer in record.trained} == {1}
    assert all(0 < layer.tokens_without_expert < 1 for layer in record.trained)
    assert "No collapse in 1 inspected run" in read_page(Workdir(str(tmp_path / "w"))).text


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--sequences=0"], "must be above 0"),
        (["--sequences=1000000"], "held-out part"),
        (["--store=/nowhere"], "there is no token store"),
    ],
)
def test_bad_input_is_one_sentence(trained, capsys, flags, words):
    code, _, said = run(trained, capsys, *flags)
    assert code == errors.BAD_INPUT and words in said and said.count("\n") == 1


def test_what_routes_nothing_is_refused(byte_store, tmp_path, capsys):
    folder = train_run(tmp_path / "w", byte_store, "--config.moe=None")
    code, _, said = run(folder, capsys)
    assert code == errors.BAD_INPUT and "is a dense model" in said


def test_a_foreign_record_is_refused(trained, capsys):
    run(trained, capsys)
    values = json.loads((trained.path / "routing.json").read_text())
    again = json.loads(json.dumps(RoutingRecord.from_json(values, trained.name).to_json()))
    assert again == {name: value for name, value in values.items() if name != "fields_sha256"}
    for changed in ({"name": "x"}, {"trained": []}, {"trained": 3}, {"initial": values["initial"] * 2}, {"top_k": "2"}):
        with pytest.raises(UserError):
            RoutingRecord.from_json(values | changed, trained.name)
