"""collect: a row a finished run, and a reason for every other one."""

import dataclasses
import json
import os

import pytest

from moe_jax.cli import collect, command
from moe_jax.config.cell import Cell
from moe_jax.errors import UserError, WorkFailed
from moe_jax.files import DamagedFile
from moe_jax.sweep import collected, results
from moe_jax.sweep.known_results import KnownResults
from tests import synthetic_sweep as synthetic
from tests.hand_edits import sealed_text

SMALL = synthetic.cells(widths=[16, 32], tokens=[96_000], granularities=[1, 2])
DESIGN_COLUMNS = (
    "name, status, n_total_nonemb, n_active_nonemb, n_total, n_active, tokens, unique_tokens, expansion_rate, "
    "granularity, active_rate, sparsity, n_experts, top_k, shared_share, router, dispatch, schedule, optimizer, "
    "d_model, n_layers, batch_tokens, sequence_length, vocab_size, compute_dtype, store_sha256, "
    "flops_krajewski2024, flops_abnar2025, train_flops, eval_loss, eval_loss_capacity, bits_per_byte, train_loss, "
    "dropped_fraction, eval_dropped_fraction, seed, learning_rate, trunk, own_tokens, attempts, config_hash, "
    "git_commit, device, n_devices, wall_seconds, tokens_per_second, mfu"
)


def run_collect(work, *flags):
    return collect.main(["--workdir", str(work.path), *flags])


def rows_of(work):
    return {row["name"]: row for row in results.read_csv(work.path / "results.csv")}


def test_every_finished_run_is_a_row_with_the_columns_of_the_design(tmp_path, capsys):
    work, planned = synthetic.make(tmp_path / "w")
    for run in planned:
        synthetic.finish(work, run)
    assert run_collect(work) == 0
    assert (work.path / "results.csv").read_text().splitlines()[0] == DESIGN_COLUMNS.replace(", ", ",")
    rows = rows_of(work)
    assert list(rows) == [run.name for run in planned]
    for run in planned:
        row = rows[run.name]
        assert row["status"] == "done"
        assert row["eval_loss"] == synthetic.planned_loss(run)  # to the last bit
        assert row["granularity"] * run.config.moe.d_expert == run.config.model.d_ff
        assert row["n_total_nonemb"] == run.counts.n_total_nonemb
        assert row["train_flops"] == run.counts.train_flops
        assert row["tokens"] == run.counts.tokens == run.config.steps * row["batch_tokens"]
        assert row["store_sha256"] == synthetic.STORE.sha256 and row["config_hash"] == run.config_hash
        assert row["mfu"] is None and row["trunk"] is None
        assert row["unique_tokens"] == min(row["tokens"], 200_000 // row["sequence_length"] * row["sequence_length"])
        assert row["shared_share"] == 0
    assert "27 runs" in capsys.readouterr().out


def test_unfinished_runs_are_left_out_and_named(tmp_path, capsys):
    work, planned = synthetic.make(tmp_path / "w", SMALL)
    done, running, failed, queued = planned
    synthetic.finish(work, done)
    synthetic.begin(work, running, step=3, loss=4.0)
    folder, attempt = synthetic.begin(work, failed, step=3)
    folder.end_attempt(attempt, 1, "RESOURCE_EXHAUSTED:\nout of memory")
    assert run_collect(work) == 0
    out = capsys.readouterr().out
    assert list(rows_of(work)) == [done.name]
    assert f"left out: {failed.name} (failed): RESOURCE_EXHAUSTED: out of memory" in out
    assert f"left out: 1 run running ({running.name})" in out
    assert f"left out: 1 run queued ({queued.name})" in out


def test_a_diverged_run_is_a_row_that_says_so(tmp_path, capsys):
    work, planned = synthetic.make(tmp_path / "w", SMALL)
    synthetic.finish(work, planned[0])
    synthetic.finish(work, planned[1], synthetic.diverged_result_of(planned[1], 20))
    assert run_collect(work) == 0
    row = rows_of(work)[planned[1].name]
    assert row["status"] == "diverged" and row["eval_loss"] is None
    assert row["tokens"] == 20 * planned[1].config.batch_tokens
    share = row["tokens"] / planned[1].counts.tokens
    assert row["flops_krajewski2024"] == pytest.approx(share * planned[1].counts.flops_krajewski2024)
    assert "1 of them diverged" in capsys.readouterr().out


DAMAGE = {
    "torn": lambda result: json.dumps(result)[:-9],
    "no object": lambda result: "[]",
    "another run's": lambda result: sealed_text(result | {"name": "n1k-d1k-g1-s0"}),
    "no loss": lambda result: sealed_text({k: v for k, v in result.items() if k != "eval_loss"}),
    "loss of NaN": lambda result: sealed_text(result | {"eval_loss": float("nan")}),
    "loss is a text": lambda result: sealed_text(result | {"eval_loss": "3.2"}),
    "tokens are true": lambda result: sealed_text(result | {"tokens": True}),
    "unknown status": lambda result: sealed_text(result | {"status": "fine"}),
    "device is a number": lambda result: sealed_text(result | {"device": 3}),
    "other tokens than planned": lambda result: sealed_text(result | {"tokens": 512}),
    "other steps than planned": lambda result: sealed_text(result | {"steps": 1}),
    "a loss below 0": lambda result: sealed_text(result | {"eval_loss": -3.0}),
    "more dropped than there are": lambda result: sealed_text(result | {"dropped_fraction": 1.5}),
    "no fields": lambda result: sealed_text({}),
    "steps that no float holds": lambda result: sealed_text(result | {"steps": 10**400}),
    "changed by hand": lambda result: json.dumps(result | {"eval_loss": 2.5}),
    "no seal": lambda result: json.dumps({k: v for k, v in result.items() if k != "fields_sha256"}),
    "binary": lambda result: b"\x00\xff\xfe",
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_result_is_named_and_fails_the_verb_but_not_the_others(tmp_path, capsys, how):
    work, planned = synthetic.make(tmp_path / "w", SMALL)
    for run in planned:
        folder = synthetic.finish(work, run)
    damaged = DAMAGE[how](json.loads(folder.result_path.read_text()))
    folder.result_path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    assert run_collect(work) == 1
    assert list(rows_of(work)) == [run.name for run in planned[:-1]]
    out = capsys.readouterr().out
    assert f"left out: {folder.name} (damaged): {folder.result_path}: is damaged" in out


@pytest.mark.parametrize("content", [None, "{", "{}", sealed_text({"store": []})])
def test_without_run_json_a_result_is_of_unknown_data(tmp_path, capsys, content):
    work, planned = synthetic.make(tmp_path / "w", SMALL)
    for run in planned:
        folder = synthetic.finish(work, run)
    path = folder.path / "run.json"
    path.unlink() if content is None else path.write_text(content)
    assert run_collect(work) == 1
    assert folder.name not in rows_of(work)
    assert "run.json" in capsys.readouterr().out


def test_a_result_of_another_config_is_left_out(tmp_path, capsys):
    work, planned = synthetic.make(tmp_path / "w", SMALL)
    for run in planned[:-1]:
        synthetic.finish(work, run)
    synthetic.finish(work, planned[-1], synthetic.result_of(planned[-1], config_hash="feedfeedfeedfeed"))
    assert run_collect(work) == 1
    assert planned[-1].name not in rows_of(work)
    assert "another config (hash feedfeedfeedfeed" in capsys.readouterr().out


MIXES = {
    "optimizer": [{"optim.name": "adamw"}, {"optim.name": "lion", "optim.eps": None}],
    "dispatch": [Cell({"moe.dispatch": "slots"}, name="a"), Cell({"moe.dispatch": "dense"}, name="b")],
    "batch_tokens": [{"train.batch_sequences": 32}, {"train.batch_sequences": 64}],
}


@pytest.mark.parametrize("column", MIXES)
def test_unlike_runs_are_mixed_only_when_asked(tmp_path, column):
    work, planned = synthetic.make(tmp_path / "w", MIXES[column])
    for run in planned:
        synthetic.finish(work, run)
    with pytest.raises(UserError, match=f"several values of {column}.*--mixed={column}"):
        run_collect(work)
    assert not (work.path / "results.csv").exists()
    assert run_collect(work, f"--mixed={column}") == 0
    values = {
        "dispatch": lambda config: config.moe.dispatch, "batch_tokens": lambda config: config.batch_tokens,
        "optimizer": lambda config: config.optim.name,
    }  # fmt: skip
    assert {row[column] for row in rows_of(work).values()} == {values[column](run.config) for run in planned}


def test_two_stores_are_a_mix(tmp_path):
    work, planned = synthetic.make(tmp_path / "w", SMALL)
    for run in planned:
        folder = synthetic.finish(work, run)
    other = dataclasses.replace(folder.run_record().store, path="elsewhere", sha256="ab" * 32)
    folder.write_run_record(dataclasses.replace(folder.run_record(), store=other))
    with pytest.raises(UserError, match="several values of store_sha256"):
        run_collect(work)
    assert run_collect(work, "--mixed=store_sha256,dispatch") == 0


def test_a_dense_twin_is_no_mix_of_dispatch_and_has_no_granularity(tmp_path):
    work, planned = synthetic.make(tmp_path / "w", [{"moe": None}, {"moe.granularity": 2}])
    for run in planned:
        synthetic.finish(work, run)
    assert run_collect(work) == 0
    dense, moe = rows_of(work).values()
    assert (dense["granularity"], dense["dispatch"], dense["router"]) == (None, None, None)
    assert (dense["expansion_rate"], dense["active_rate"], dense["sparsity"], dense["n_experts"]) == (1, 1, 0, 1)
    assert dense["n_total_nonemb"] == dense["n_active_nonemb"] == moe["n_active_nonemb"]


def test_nothing_to_collect_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="holds no sweep"):
        collect.main(["--workdir", str(tmp_path)])
    work, _ = synthetic.make(tmp_path / "w", SMALL)
    with pytest.raises(WorkFailed, match="no run has a result yet"):
        run_collect(work)
    assert command.run(collect.main, ["--workdir", str(work.path)]) == 1
    assert not (work.path / "results.csv").exists()
    with pytest.raises(UserError, match="--mixed=router: must be one of store_sha256, dispatch, schedule, optimizer"):
        run_collect(work, "--mixed=router")


def test_again_writes_only_what_changed(tmp_path, capsys):
    work, planned = synthetic.make(tmp_path / "w", SMALL)
    synthetic.finish(work, planned[0])
    run_collect(work)
    before = os.stat(work.path / "results.csv").st_mtime_ns
    capsys.readouterr()
    run_collect(work)
    assert "unchanged" in capsys.readouterr().out
    assert os.stat(work.path / "results.csv").st_mtime_ns == before
    synthetic.finish(work, planned[1])
    run_collect(work)
    assert len(rows_of(work)) == 2


def test_csv_reads_back_as_it_was(tmp_path):
    work, planned = synthetic.make(tmp_path / "w", SMALL)
    hostile = 'TPU "v5e", <script>\n=1+1'
    for run in planned:
        synthetic.finish(work, run, synthetic.result_of(run, device=hostile, mfu=0.1 + 0.2))
    gathered = collected.gather(work, work.existing_manifest(), KnownResults(work)).rows
    path = work.path / "results.csv"
    path.write_bytes(results.to_csv(gathered))
    assert results.read_csv(path) == gathered
    whole = path.read_text()
    gathered[1] |= {"eval_loss_code": 2.5, "bits_per_byte_code": 1 / 3, "arc_easy_accuracy": 0.25}
    path.write_bytes(results.to_csv(gathered))
    assert results.read_csv(path) == gathered and path.read_text() != whole
    for text in (
        "a,b\n1,2\n",
        whole.replace("mfu\n", "mfu,zeta,alpha\n"),
        whole.replace("mfu\n", "mfu,name\n"),
        whole.replace("mfu\n", "mfu,eval loss\n"),
        whole.replace("mfu\n", "mfu,a,a\n"),
    ):
        path.write_text(text)
        with pytest.raises(DamagedFile, match="other columns"):
            results.read_csv(path)
    path.write_text(whole.replace("mfu\n", "mfu,alpha\n"))  # a column more than the rows have
    with pytest.raises(DamagedFile, match="is damaged"):
        results.read_csv(path)
