"""What plan makes of compiled steps: shapes, placements, rooflines, kept compiles; a fake stands for the compiler."""

import dataclasses
import json
import os
import signal
import threading

import pytest

from moe_jax import chips, compiles, configfile, errors, forecasts, interrupts, placements, plan, plan_rows, roofline
from moe_jax.compiles import Compiles, Request
from moe_jax.config import MeshConfig
from moe_jax.forecast import Target, forecast
from moe_jax.outlook import of
from moe_jax.placements import Placement
from moe_jax.step_shapes import StepShape
from tests import models
from tests.fake_compiler import GIB, FakeCompiler

K24 = ("--config=configs/krajewski2024.py:table3", "--config.model.vocabulary_size=50257")


def grid(*flags: str):
    return of(configfile.load(list(flags)))


# Shapes: what enters a compile.


def test_what_is_a_value_of_the_step_is_no_part_of_its_shape():
    base = StepShape(models.config(), 37)
    same = (
        "train.tokens=1000", "optim.learning_rate=0.1", "seed=5", "optim.warmup_fraction=0.5", "eval.sequences=32",
        "checkpoint.keep=7", "data.store=elsewhere", "tensorboard=True", "mesh.expert=2", "train.log_every_steps=9",
    )  # fmt: skip
    assert {StepShape(models.config(field), 37).key for field in same} == {base.key}
    other = (
        "model.n_blocks=3", "moe.granularity=4", "train.microbatches=2", "train.batch_sequences=32", "optim.eps=1e-6",
        "data.sequence_length=32", "model.remat=block", "model.compute_dtype=bfloat16", "optim.clip_norm=None",
    )  # fmt: skip
    keys = {StepShape(models.config(field), 37).key for field in other}
    assert len(keys) == len(other) and base.key not in keys
    assert StepShape(base.config, 38).key != base.key


def test_table_3_has_28_shapes():
    runs = grid(*K24).runs
    assert len({StepShape(run.config, run.counts["vocabulary_size"]).key for run in runs}) == 28


# Placements.


def test_the_configs_own_placement_is_what_train_makes_of_it():
    c = models.config("train.batch_sequences=32", "moe.n_experts=16", "moe.expansion_rate=None")
    assert placements.configured(c, 8) == Placement(MeshConfig(1, 1, 8), 1)
    with pytest.raises(errors.UserError, match="cannot be cut over 64 devices"):
        placements.configured(dataclasses.replace(c, mesh=MeshConfig(1, -1, 1)), 64)
    with pytest.raises(errors.UserError, match="must divide the 16 experts"):
        placements.configured(c, 32)


def test_every_option_can_be_done_and_keeps_the_batch():
    c = models.config("train.batch_sequences=64", *models.EXPERT_CHOICE)
    for mesh in placements.meshes(c, 8, 2):
        for option in placements.options(c, mesh):
            placed = option.applied(c)  # check_fit would refuse it here
            assert placed.train.batch_sequences == 64
            assert placed.mesh.replica * placed.mesh.data * placed.mesh.expert == 8


def test_several_slices_hold_copies_and_dense_runs_have_no_expert_axis():
    c = models.config("moe.n_experts=16", "moe.expansion_rate=None")
    assert [(m.replica, m.data, m.expert) for m in placements.meshes(c, 16, 2)] == [
        (2, 1, 8), (2, 2, 4), (2, 4, 2), (2, 8, 1), (1, 1, 16),
    ]  # fmt: skip
    dense = models.config("moe=None", "mesh.expert=1", "mesh.data=-1")
    assert [(m.replica, m.data, m.expert) for m in placements.meshes(dense, 16, 2)] == [(2, 8, 1), (1, 16, 1)]


@pytest.mark.parametrize(("parts", "expected"), [(0, 1), (28, 2), (40, 4), (100, 8), (900, 64)])
def test_picking_finds_the_fewest_microbatches_that_fit(parts, expected):
    c = models.config("train.batch_sequences=512", "train.microbatches=4")
    fake = FakeCompiler(fixed=GIB, parts=parts * GIB)
    shape = StepShape(c, 37)
    found = forecast(shape, 1000, Target("v5e:2x2", 1, pick=True), fake)
    assert found.fits and found.placement.microbatches == expected
    assert len(fake.asked) <= 6  # of the 8 numbers that divide the batch into parts for 4 devices


def test_without_picking_the_configs_own_is_all_that_is_tried():
    c = models.config("train.batch_sequences=512", "train.microbatches=4")
    fake = FakeCompiler(fixed=GIB, parts=100 * GIB)
    found = forecast(StepShape(c, 37), 1000, Target("v5e:2x2", 1, pick=False), fake)
    assert not found.fits and len(fake.asked) == 1 and found.placement.microbatches == 4


def test_where_nothing_fits_the_nearest_miss_is_told():
    c = models.config("train.batch_sequences=16")
    found = forecast(StepShape(c, 37), 1000, Target("v5e:2x2", 1, pick=True), FakeCompiler(20 * GIB, 16 * GIB))
    assert not found.fits and found.placement.microbatches == 4
    assert found.bytes_per_device == 24 * GIB


def test_a_step_that_cannot_be_cut_so_has_a_reason_and_no_compile():
    fake = FakeCompiler()
    for pick in (False, True):
        found = forecast(StepShape(models.config(), 37), 1000, Target("v5e:8x8", 1, pick), fake)
        assert not found.fits and "must divide the 16 experts" in found.reason
        columns = found.columns(1e12)
        assert columns["step_seconds"] is None and columns["chips"] == 64
    assert not fake.asked


def test_auto_finds_the_smallest_slice_and_passes_over_those_that_cannot_hold_the_state():
    c = models.config("train.batch_sequences=512", "mesh.data=-1", "mesh.expert=1")
    fake = FakeCompiler(fixed=100 * GIB, per_device=True)
    found = forecast(StepShape(c, 37), 1000, Target("auto", 1, pick=False), fake)
    assert found.topology.name == "v5e:2x4" and found.fits
    assert [r.topology for r in fake.asked] == ["v5e:1x1", "v5e:2x2", "v5e:2x4"]
    fake.asked.clear()
    found = forecast(StepShape(c, 37), 6 * GIB, Target("auto:v5e", 1, pick=False), fake)  # a state of 72 GiB
    assert [r.topology for r in fake.asked] == ["v5e:2x4"]
    with pytest.raises(errors.UserError, match="there is no chip 'v9'"):
        _ = Target("auto:v9", 1, pick=False).candidates


# Rooflines.


def test_each_bound_by_hand():
    v5e = chips.CHIPS["v5e"]
    bounds = roofline.roofline(roofline.Work(197e12, 819e9 / 2, 400e9 / 2 / 4, 0), v5e)
    assert bounds.compute == pytest.approx(1) and bounds.hbm == pytest.approx(0.5)
    assert bounds.ici == pytest.approx(0.25) and bounds.dcn == 0
    assert (bounds.seconds, bounds.bound) == (bounds.compute, "compute")
    # A chip of two devices: each has half of everything.
    tpu7x = chips.CHIPS["tpu7x"]
    assert roofline.roofline(roofline.Work(tpu7x.peak_flops, 1, 1, 0), tpu7x).compute == pytest.approx(2)
    # Between slices: a rate that nobody publishes is said to be unknown, not taken as 0 or infinite.
    v4 = chips.CHIPS["v4"]
    assert v4.dcn_bandwidth is None
    between = roofline.roofline(roofline.Work(1, 1, 1, 1e12), v4)
    assert between.dcn is None and between.bound != "dcn"


def test_the_hours_of_a_run_are_its_counts_over_the_published_peak(tmp_path):
    outlook = grid(*K24).only(["n25m-d16b-g8-*"])
    rates = plan_rows.Rates(efficiency=0.5, price_per_chip_hour=1.25)
    steps = Compiles(tmp_path, FakeCompiler())
    rows = plan_rows.rows(outlook)
    (row,) = forecasts.add(rows, outlook.runs, Target("v5e:4x4", 1, False), rates, jobs=1, steps=steps)
    assert row["seconds"]["compute"] == pytest.approx(row["train_flops"] / row["steps"] / (16 * 197e12))
    assert row["bound"] == "compute"  # of this fake's bytes
    assert row["hours"] == pytest.approx(row["train_flops"] / (16 * 197e12) / 0.5 / 3600)
    assert row["chip_hours"] == pytest.approx(16 * row["hours"])
    assert row["price"] == pytest.approx(1.25 * row["chip_hours"])
    summed = plan_rows.totals([row], outlook)
    assert (summed["fit"], summed["chip_hours"], summed["price"]) == (1, row["chip_hours"], row["price"])
    json.dumps([row, summed], allow_nan=False)


def test_shared_trunks_cost_once(tmp_path):
    wsd = ["schedule='wsd'", "warmup_fraction=None", "warmup_tokens=512", "decay_fraction=0.25"]
    outlook = grid("--config=configs/smoke.py:tiny", *(f"--config.optim.{field}" for field in wsd))
    steps, rows = Compiles(tmp_path, FakeCompiler()), plan_rows.rows(outlook)
    rows = forecasts.add(rows, outlook.runs, Target("v5e:2x2", 1, False), plan_rows.Rates(), jobs=1, steps=steps)
    summed = plan_rows.totals(rows, outlook)
    # D of 2,048 and 4,096 tokens: 3,072 of a trunk, and 512 and 1,024 of branches.
    assert summed["own_chip_hours"] / summed["chip_hours"] == pytest.approx((3072 + 512 + 1024) / (2048 + 4096))
    assert summed["own_price"] is None


# Kept compiles.


EXPERT_4 = MeshConfig(1, 1, 4)


def request(field: str = "seed=0", topology: str = "v5e:2x2", mesh: MeshConfig = EXPERT_4, parts: int = 1) -> Request:
    shape = StepShape(models.config("train.batch_sequences=32", field), 37)
    return Request(shape, topology, 1, Placement(mesh, parts))


def test_a_compile_is_kept_by_all_that_it_depends_on(tmp_path, monkeypatch):
    fake = FakeCompiler()
    steps = Compiles(tmp_path, fake)
    first = steps.get(request())
    assert steps.get(request("seed=1")) == first and len(fake.asked) == 1
    assert Compiles(tmp_path, fake).get(request()) == first and len(fake.asked) == 1
    others = [
        request("model.n_blocks=3"), request(topology="v5p:2x2x1"), request(mesh=MeshConfig(1, 2, 2)),
        request(parts=2), dataclasses.replace(request(mesh=MeshConfig(2, 1, 4)), slices=2),
    ]  # fmt: skip
    assert len({r.digest for r in [request(), *others]}) == 1 + len(others)
    kept = request().digest
    with monkeypatch.context() as m:
        m.setattr(compiles, "_source_digest", lambda: "changed code")
        assert request().digest != kept
    with monkeypatch.context() as m:
        m.setattr(compiles, "_versions", lambda: {"jax": "0.99"})
        assert request().digest != kept


def test_a_damaged_record_is_made_again(tmp_path):
    fake = FakeCompiler()
    steps = Compiles(tmp_path, fake)
    steps.get(request())
    (record,) = tmp_path.iterdir()
    for content in ("", "{}", "[1]", '{"topology": 3}', record.read_text()[:-40]):
        record.write_text(content)
        assert steps.known(request()) is None
        assert steps.get(request()).fits
    assert len(fake.asked) == 6


def test_the_source_digest_knows_every_file_that_the_step_comes_from():
    root = compiles.Path(compiles.__file__).parent
    found = {path.relative_to(root).as_posix() for path in compiles._sources(root)}
    assert {"trainer.py", "optim.py", "sharding.py", "aot.py", "model/moe.py", "model/routing.py"} <= found


def test_each_shape_is_compiled_once_and_several_at_a_time(tmp_path):
    outlook = grid("--config=configs/smoke.py:tiny")
    together = threading.Barrier(2, timeout=30)

    class Meeting(FakeCompiler):
        def __call__(self, request):
            together.wait()  # breaks unless two are compiled side by side
            return super().__call__(request)

    fake = Meeting()
    rows = plan_rows.rows(outlook)
    target = Target("v5e:2x2", 1, False)
    added = forecasts.add(rows, outlook.runs, target, plan_rows.Rates(), jobs=2, steps=Compiles(tmp_path, fake))
    assert len(added) == 8 and len(fake.asked) == 4  # D is no part of a shape
    assert all(row["fits"] and row["microbatches"] == 1 for row in added)
    again = FakeCompiler()
    assert forecasts.add(rows, outlook.runs, target, plan_rows.Rates(), jobs=2, steps=Compiles(tmp_path, again))
    assert not again.asked


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_plan_that_is_stopped_goes_on(tmp_path, number):
    outlook = grid("--config=configs/smoke.py:tiny")
    rows, target = plan_rows.rows(outlook), Target("v5e:2x2", 1, False)

    class Interrupted(FakeCompiler):
        def __call__(self, request):
            if len(self.asked) == 2:
                os.kill(os.getpid(), number)
                assert steps._children._ended.wait(30)  # as a child that is killed
                raise errors.Stopped("stopped")
            return super().__call__(request)

    steps = Compiles(tmp_path, Interrupted())
    with interrupts.sigterm_as_interrupt(), pytest.raises(errors.Stopped, match="stopped with 2 of 4 shapes compiled"):
        forecasts.add(rows, outlook.runs, target, plan_rows.Rates(), jobs=1, steps=steps)
    rest = FakeCompiler()
    forecasts.add(rows, outlook.runs, target, plan_rows.Rates(), jobs=1, steps=Compiles(tmp_path, rest))
    assert len(rest.asked) == 2


def test_a_compiler_that_crashes_costs_its_own_shape_only(tmp_path):
    outlook = grid("--config=configs/smoke.py:tiny")

    class Crashing(FakeCompiler):
        def __call__(self, request):
            if request.shape.config.moe.granularity == 2:
                raise compiles.CompileFailed("the compiler ended with code -11: it said nothing")
            return super().__call__(request)

    steps = Compiles(tmp_path, Crashing())
    target = Target("v5e:2x2", 1, False)
    rows = forecasts.add(plan_rows.rows(outlook), outlook.runs, target, plan_rows.Rates(), jobs=1, steps=steps)
    assert [row["fits"] for row in rows] == [row["granularity"] == 1 for row in rows]
    assert all("code -11" in row["reason"] for row in rows if not row["fits"])
    assert len(list(tmp_path.iterdir())) == 2  # a crash is not kept: the next plan tries again


def test_the_verb_says_what_does_not_fit_and_ends_with_1(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fake = FakeCompiler(fixed=15 * GIB, parts=3 * GIB)
    monkeypatch.setattr(compiles._Children, "compile", lambda self, request: fake(request))
    monkeypatch.setattr(forecasts, "missing_compiler", lambda: None)
    tiny = ["--config=configs/smoke.py:tiny", "--topology=v5e:2x2"]
    assert plan.main(tiny) == errors.FAILED
    said = capsys.readouterr().out
    assert "0 of 8 runs fit" in said and "needs more memory than a chip has" in said and "2.25 GiB over" in said
    assert plan.main([*tiny, "--pick", "--price_per_chip_hour=2"]) == errors.FAILED  # the batch has 8 sequences
    assert plan.main([*tiny, "--config.train.batch_sequences=64", "--pick"]) == errors.DONE
    said = capsys.readouterr().out
    assert "8 of 8 runs fit" in said and "--config.train.microbatches=4" in said


def test_without_libtpu_the_rest_of_the_plan_is_given(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(forecasts.importlib.util, "find_spec", lambda name: None)
    out = tmp_path / "plan.json"
    with pytest.raises(errors.UserError, match="pip install 'moe_jax"):
        plan.main(["--config=configs/smoke.py:tiny", "--topology=v5e:2x2", f"--out={out}"])
    assert "8 runs: 24.6k tokens" in capsys.readouterr().out
    assert len(json.loads(out.read_text())["runs"]) == 8
