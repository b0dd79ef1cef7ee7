"""plan: what a grid is and costs, from its config alone. A fake stands for the compiler; tests/plan/test_topologies.py
has the real one."""

import json
import subprocess
import sys

import pytest

from moe_jax import errors
from moe_jax.cli import plan
from moe_jax.data.store import read_info
from moe_jax.plan import compiles, grid_forecast
from moe_jax.sweep.results import COLUMNS
from tests.conftest import ROOT
from tests.fake_compiler import GIB, FakeCompiler

TINY = ("--config=configs/smoke.py:tiny",)


def planned(capsys, tmp_path, *flags: str, code: int = errors.DONE) -> tuple[dict, str]:
    """(plan.json, what was printed) of a config's plan."""
    out = tmp_path / "plan.json"
    assert plan.main([*flags, f"--out={out}"]) == code
    return json.loads(out.read_text()), capsys.readouterr().out


@pytest.mark.parametrize(
    ("form", "runs", "tokens", "flops"),
    [("table3", 78, 3.162e12, 4.04e20), ("table4", 22, None, None), ("table7", 68, None, None)],
)
def test_the_papers_grids_have_the_papers_numbers(capsys, tmp_path, form, runs, tokens, flops):
    told, _ = planned(capsys, tmp_path, f"--config=configs/krajewski2024.py:{form}")
    assert told["totals"]["runs"] == len(told["runs"]) == runs
    if tokens:
        assert told["totals"]["tokens"] == pytest.approx(tokens, rel=1e-3)
        assert told["totals"]["flops_krajewski2024"] == pytest.approx(flops, rel=2e-3)


def test_rows_have_the_columns_of_results_that_are_known_before_training(capsys, tmp_path):
    told, _ = planned(capsys, tmp_path, "--config=configs/krajewski2025.py:11b")
    measured = {
        "status", "eval_loss", "eval_loss_capacity", "bits_per_byte", "train_loss", "dropped_fraction",
        "eval_dropped_fraction", "attempts", "git_commit", "device", "n_devices", "wall_seconds",
        "tokens_per_second", "mfu",
    }  # fmt: skip
    for row in told["runs"]:
        assert set(COLUMNS) - measured <= set(row)
    assert told["totals"]["train_flops"] == sum(row["train_flops"] for row in told["runs"])


def test_nothing_heavy_is_imported_for_the_analytic_part():
    code = (
        "import sys; from moe_jax.cli import plan; plan.main(['--config=configs/smoke.py:tiny']); "
        "assert not {'jax', 'flax', 'tensorflow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_vocabulary_is_the_configs_or_its_files_or_asked_for(capsys, tmp_path):
    missing = f"--config.data.store={tmp_path}/none"
    _, said = planned(capsys, tmp_path, *TINY, missing)
    assert "there is no token store" in said and "259 token ids (config.data.vocabulary = 'byte')" in said
    with pytest.raises(errors.UserError, match="vocab_size=N"):
        plan.main(["--config=configs/krajewski2024.py:table3", missing, "--config.model.vocab_size=None"])
    _, said = planned(capsys, tmp_path, "--config=configs/krajewski2024.py:table3", missing)
    assert "planned without it, with 50,257 token ids (config.model.vocab_size)" in said
    told, said = planned(capsys, tmp_path, *TINY, missing, "--config.model.vocab_size=1000")
    assert "1,000 token ids (config.model.vocab_size)" in said
    assert told["runs"][0]["vocab_size"] == 1000
    assert told["runs"][0]["config_hash"] is None  # it would be another one with the store


def test_the_store_says_its_hash_and_who_asks_for_too_much(capsys, tmp_path, byte_store):
    told, said = planned(capsys, tmp_path, *TINY, f"--config.data.store={byte_store}")
    info = read_info(byte_store)
    assert {row["store_sha256"] for row in told["runs"]} == {info.sha256}
    assert all(row["refusal"] is None and 0 < row["epochs"] < 1 for row in told["runs"])
    assert all(len(row["config_hash"]) == 16 for row in told["runs"])

    cell = tmp_path / "greedy.py"
    cell.write_text(
        "from configs import smoke\n"
        "def get_config(arg=None):\n"
        "    config = smoke.get_config('tiny')\n"
        "    config.train.tokens = 10**9\n"
        "    return config\n"
    )
    greedy = (f"--config={cell}", f"--config.data.store={byte_store}")
    told, said = planned(capsys, tmp_path, *greedy, code=errors.FAILED)
    assert "more than the" in told["runs"][0]["refusal"] and "sweep will not start" in said
    told, said = planned(capsys, tmp_path, *greedy, "--config.data.repeat=True")
    assert told["runs"][0]["refusal"] is None and told["runs"][0]["epochs"] > 10
    assert "1 run will read the store's tokens more than once" in said


def test_a_grid_has_one_store(tmp_path):
    config = tmp_path / "two.py"
    config.write_text(
        "from configs import smoke\n"
        "get_config = smoke.get_config\n"
        "def get_grid(config, arg=None):\n"
        "    return [{'data.store': 'a'}, {'data.store': 'b', 'seed': 1}]\n"
    )
    with pytest.raises(errors.UserError, match=r"that of the config \(.*\); the grid's cells name a, b"):
        plan.main([f"--config={config}"])


def test_what_trunks_save(capsys, tmp_path):
    _, said = planned(capsys, tmp_path, "--config=configs/krajewski2024.py:table3")
    assert "with optim.schedule=wsd, runs that differ in D alone would share 25 trunks" in said
    assert "instead of 3.16T" in said
    wsd = ["schedule='wsd'", "warmup_fraction=None", "warmup_tokens=512", "decay_fraction=0.25"]
    told, said = planned(capsys, tmp_path, *TINY, *(f"--config.optim.{field}" for field in wsd))
    assert "4 trunks shared by runs that differ in D alone" in said
    # D of 2,048 and 4,096: the trunk goes to 3/4 of the longer; both decay over a quarter of theirs.
    assert told["totals"]["own_tokens"] == 4 * (3072 + 512 + 1024)
    assert all(row["trunk"] and row["own_tokens"] < row["tokens"] for row in told["runs"])


def test_some_runs_of_a_grid(capsys, tmp_path):
    told, _ = planned(capsys, tmp_path, *TINY, "--only=n768-*", "--only=*-d4p1k-g1-*")
    assert [row["name"] for row in told["runs"]] == [
        "n768-d2k-g1-s0", "n768-d2k-g2-s0", "n768-d4p1k-g1-s0", "n768-d4p1k-g2-s0", "n3p1k-d4p1k-g1-s0",
    ]  # fmt: skip
    assert told["totals"]["runs"] == 5
    with pytest.raises(errors.UserError, match="--only=m\\*: matches no run of the grid; its runs are n768-d2k-g1-s0"):
        plan.main([*TINY, "--only=m*"])


def test_another_plan_is_moved_aside_and_another_file_left_alone(capsys, tmp_path):
    first, _ = planned(capsys, tmp_path, *TINY)
    _, said = planned(capsys, tmp_path, *TINY)
    assert "(unchanged)" in said and len(list(tmp_path.iterdir())) == 1
    second, said = planned(capsys, tmp_path, *TINY, "--config.model.n_layers=3")
    assert "the old plan was moved to" in said and second != first
    assert json.loads((tmp_path / "plan.1.json").read_text()) == first
    planned(capsys, tmp_path, *TINY)
    assert json.loads((tmp_path / "plan.2.json").read_text()) == second
    for content in ('{"runs": 3}', "not json"):
        other = tmp_path / "other.json"
        other.write_text(content)
        with pytest.raises(errors.UserError, match="would overwrite"):
            plan.main([*TINY, f"--out={other}"])
        assert other.read_text() == content


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--slices=0"], "--slices=0: must be at least 1"),
        (["--jobs=0"], "--jobs=0: must be at least 1"),
        (["--topology=v5e:4x4", "--efficiency=1.5"], "--efficiency=1.5: must be above 0 and at most 1"),
        (["--topology=v5e:4x4", "--price_per_chip_hour=-1"], "must be a number of at least 0"),
        (["--topology=v5e:4x4", "--price_per_chip_hour=nan"], "must be a number of at least 0"),
        (["--price_per_chip_hour=1"], "give --topology with it"),
        (["--pick"], "give --topology with it"),
    ],
)
def test_flags_that_say_nothing_are_refused(flags, words):
    with pytest.raises(errors.UserError, match=words):
        plan.main([*TINY, *flags])


def test_the_verb_says_what_does_not_fit_and_ends_with_1(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fake = FakeCompiler(fixed=15 * GIB, parts=3 * GIB)
    monkeypatch.setattr(compiles._Children, "compile", lambda self, request: fake(request))
    monkeypatch.setattr(grid_forecast, "missing_compiler", lambda: None)
    tiny = [*TINY, "--topology=v5e:2x2"]
    assert plan.main(tiny) == errors.FAILED
    said = capsys.readouterr().out
    assert "0 of 8 runs fit" in said and "needs more memory than a chip has" in said and "2.25 GiB over" in said
    assert plan.main([*tiny, "--pick", "--price_per_chip_hour=2"]) == errors.FAILED  # the batch has 8 sequences
    assert plan.main([*tiny, "--config.train.batch_sequences=64", "--pick"]) == errors.DONE
    said = capsys.readouterr().out
    assert "8 of 8 runs fit" in said and "--config.train.microbatches=4" in said


def test_without_libtpu_the_rest_of_the_plan_is_given(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(grid_forecast.importlib.util, "find_spec", lambda name: None)
    out = tmp_path / "plan.json"
    with pytest.raises(errors.UserError, match="pip install 'moe_jax"):
        plan.main([*TINY, "--topology=v5e:2x2", f"--out={out}"])
    assert "8 runs: 24.6k tokens" in capsys.readouterr().out
    assert len(json.loads(out.read_text())["runs"]) == 8
