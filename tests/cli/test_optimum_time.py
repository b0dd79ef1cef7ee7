"""optimum by the clock: --chip_hours and --dollars at the speeds of results.csv or plan.json."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
from etils import epath

from moe_jax import errors, files, laws
from moe_jax.cli import command, optimum, speeds

SHAPE = laws.Shape()


def results(path, chips=4, **changed):
    """results.csv of runs on 4 chips that fine experts slow down."""
    d, G = (a.ravel() for a in np.meshgrid([256.0, 512.0, 1024.0, 4096.0], [1.0, 2.0, 4.0, 8.0, 16.0]))
    E = np.full(len(d), 64.0)
    d, G, E = np.r_[d, d[:4]], np.r_[G, np.full(4, np.nan)], np.r_[E, np.ones(4)]
    flops = SHAPE.flops_per_token("train_flops", SHAPE.columns(d, E, 1.0, np.nan_to_num(G, nan=1.0)))
    rate = 1e14 * (d / 1024) ** 0.3 * np.nan_to_num(G, nan=0.5) ** -0.5
    table = {
        "name": [f"r{i}" for i in range(len(d))], "status": "done", "device": "TPU v5e", "d_model": d,
        "granularity": G, "active_rate": 1.0, "expansion_rate": E, "train_flops": 1e9 * flops, "tokens": 1e9,
        "tokens_per_second": chips * rate / flops, "n_devices": chips,
    }  # fmt: skip
    table = pd.DataFrame({**table, **changed})
    table[[c for c in table.columns if table[c].notna().any()]].to_csv(path, index=False)
    return str(path)


def call(*flags):
    return command.run(optimum.main, [*flags])


def test_chip_hours_stand_beside_the_choice_by_flops(tmp_path, capsys):
    out = tmp_path / "optimum.csv"
    law = ["--law", "krajewski2024", "--dense", "krajewski2024_dense"]
    flags = ["--chip_hours", "100", "--speeds", results(tmp_path / "results.csv"), "--out", str(out)]
    assert call(*law, *flags) == errors.DONE
    with out.open(newline="") as f:
        clock, by_flops = csv.DictReader(f)
    assert (clock["chosen_by"], by_flops["chosen_by"]) == ("wall clock", "FLOPs")
    assert float(clock["chip_hours_used"]) == pytest.approx(100)
    assert float(clock["loss"]) < float(by_flops["loss"]) and float(clock["granularity"]) < float(
        by_flops["granularity"]
    )
    for other in ("dense", "granularity_1"):
        assert float(clock[f"speedup_over_{other}"]) > float(by_flops[f"speedup_over_{other}"])
    said = capsys.readouterr().out
    assert "speed-up over dense" in said and "speed-up over G = 1" in said
    assert "measured in" in said and "on TPU v5e" in said and "is off by 0%" in said


def test_dollars_are_chip_hours_at_a_price(tmp_path):
    speeds_of = ["--speeds", results(tmp_path / "results.csv")]
    losses = []
    for name, budget in (("a.csv", ["--chip_hours", "50"]), ("b.csv", ["--dollars", "60", "--price", "1.2"])):
        assert call("--law", "krajewski2024", *budget, *speeds_of, "--out", str(tmp_path / name)) == errors.DONE
        losses.append(pd.read_csv(tmp_path / name)["loss"].to_list())
    assert losses[0] == losses[1]


def test_the_speed_of_a_chip_does_not_depend_on_how_many_there_were(tmp_path):
    found = [speeds.read(results(tmp_path / f"{n}.csv", chips=n))[0].rates for n in (1, 8)]
    assert found[0] == pytest.approx(found[1])
    without = results(tmp_path / "c.csv", n_devices=np.nan)
    assert speeds.read(without, chips=4)[0].rates == pytest.approx(found[0])


def test_without_the_rate_of_steps_whole_runs_count(tmp_path):
    d = np.r_[np.repeat(1.0, 24)]
    whole, said = speeds.read(results(tmp_path / "r.csv", tokens_per_second=np.nan, wall_seconds=500.0 * d))
    assert "whole runs with their compiles" in said and np.isfinite(whole.rates).all()


def test_a_plan_s_forecast_is_a_speed(tmp_path):
    rows = pd.read_csv(results(tmp_path / "results.csv"))
    hours = rows["tokens"] / rows["tokens_per_second"] * rows["n_devices"] / 3600
    plan = rows.assign(topology="v5e:2x2", chip_hours=hours).drop(columns=["tokens_per_second", "n_devices"])
    path = tmp_path / "plan.json"
    files.write_sealed(epath.Path(path), {"runs": json.loads(plan.to_json(orient="records")), "totals": {}})
    planned, said = speeds.read(str(path))
    assert planned.rates == pytest.approx(speeds.read(str(tmp_path / "results.csv"))[0].rates)
    assert "for v5e:2x2, nothing was measured" in said


@pytest.mark.parametrize(
    ("flags", "changed", "sentence"),
    [
        (["--chip_hours", "10"], {}, "--chip_hours needs --speeds"),
        (["--flops", "1e20", "--speeds", "{r}"], {}, "--speeds means nothing for --flops"),
        (["--flops", "1e20", "--chip_hours", "10"], {}, "give the budgets as one of"),
        ([], {}, "give the budgets as one of"),
        (["--dollars", "10", "--speeds", "{r}"], {}, "--dollars needs --price"),
        (["--chip_hours", "10", "--price", "1", "--speeds", "{r}"], {}, "--price means nothing without --dollars"),
        (["--chip_hours", "10", "--speeds", "{r}"], {"n_devices": np.nan}, "--chips does"),
        (["--chip_hours", "10", "--speeds", "{r}"], {"device": ["a", "b"] * 12}, "are of several devices"),
        (["--chip_hours", "10", "--speeds", "{r}"], {"train_flops": np.nan}, "has no column train_flops"),
        (["--chip_hours", "10", "--speeds", "nothing.json"], {}, "there is no such file"),
    ],
)
def test_what_is_no_budget_of_time_is_refused(tmp_path, capsys, flags, changed, sentence):
    path = results(tmp_path / "r.csv", **changed)
    assert call("--law", "krajewski2024", *(flag.format(r=path) for flag in flags)) == errors.BAD_INPUT
    assert sentence in capsys.readouterr().err


def test_granularities_without_a_speed_are_left_out_unless_they_are_named(tmp_path, capsys):
    """They would be taken to be as fast as the finest measured."""
    table = pd.read_csv(results(tmp_path / "r.csv"))
    flat = table.assign(tokens_per_second=4e23 / table["train_flops"])
    flat[flat["granularity"] <= 4].to_csv(tmp_path / "r.csv", index=False)
    flags = ["--law", "krajewski2024", "--chip_hours", "1000", "--speeds", str(tmp_path / "r.csv")]
    for more, finest in (([], 4), (["--granularity", "4,8"], 8)):
        assert call(*flags, *more, "--out", str(tmp_path / "o.csv")) == errors.DONE
        assert pd.read_csv(tmp_path / "o.csv")["granularity"].tolist() == [finest, finest]
        said = capsys.readouterr().out
        assert ("G is chosen from 1, 2, 4, which the speeds cover" in said) == (not more)
    assert "plans lie outside the measured" in said


def test_without_a_dense_run_its_speed_up_is_left_out(tmp_path, capsys):
    table = pd.read_csv(results(tmp_path / "r.csv"))
    table[table["expansion_rate"] > 1].to_csv(tmp_path / "r.csv", index=False)
    flags = ["--dense", "krajewski2024_dense", "--chip_hours", "10", "--speeds", str(tmp_path / "r.csv")]
    assert call("--law", "krajewski2024", *flags) == errors.DONE
    said = capsys.readouterr().out
    assert "no dense model is among the speeds" in said and "speed-up over dense" not in said
