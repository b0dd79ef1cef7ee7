"""Routing in the report: sentences where routers collapsed, figures on which nothing overlaps."""

import pytest

from moe_jax.report import routing_figure
from moe_jax.report.page import MOST_ROUTINGS, drawings
from moe_jax.report.reading import read
from moe_jax.report.sections import routing
from moe_jax.sweep.routing_record import LayerRouting, RoutingRecord
from tests import synthetic_sweep as synthetic
from tests.hand_edits import change
from tests.pages import assert_nothing_overlaps, read_page


def layer(load, **changed):
    values = {
        "load": tuple(load), "entropy": 1.2, "experts_per_token": (2.0, 2.0, 2.0), "tokens_without_expert": 0.0,
        "dropped_fraction": 0.03, "pairs": ((0, 1, 9, 3.0),), "together": None, "top_tokens": {},
    }  # fmt: skip
    return LayerRouting(**values | changed)


def record(loads, name="n25k", router="token_choice", initial=None):
    trained = tuple(map(layer, loads))
    return RoutingRecord(
        name=name, step=10, router=router, top_k=2, capacity=8, store={"path": "s", "sha256": "5e"}, sequences=4,
        tokens=sum(loads[0]) // 2, trained=trained, initial=trained if initial is None else tuple(map(layer, initial)),
    )  # fmt: skip


EVEN = [100] * 16
IDLE = [0] * 3 + [100] * 13
BUSY = [1000] + [40] * 15


def test_collapsed_layers_are_named():
    found = list(routing.collapse(record([EVEN, IDLE, BUSY])))
    assert found == [
        "Layer 2 of n25k: 3 of 16 experts take none of 800 tokens.",
        "Layer 3 of n25k: the load of the busiest expert is 10.0 × the mean.",
    ]
    both = list(routing.collapse(record([[0, *BUSY[1:], 1000, *[40] * 7]])))
    assert "1 of 24 experts takes none" in both[0] and ", and the load of the busiest" in both[0]


def test_chance_and_equal_loads_are_no_collapse():
    assert not list(routing.collapse(record([EVEN])))
    assert not list(routing.collapse(record([[0, 1, 1, 2]])))  # too few tokens to say that an expert has none
    assert not list(routing.collapse(record([BUSY], router="expert_choice")))


def test_a_section_has_every_layer():
    section = routing.routing([record([EVEN, IDLE])], ["a/routing.json: is damaged"])
    assert len(section.table.rows) == 2 and section.table.rows[1][4:6] == ["3", "3"]
    assert section.damaged and section.sentences[0].startswith("Layer 2")
    assert routing.routing([record([EVEN])], []).sentences == ["No collapse in 1 inspected run."]


@pytest.mark.parametrize("layers", [1, 2, 5, 12])
def test_figures_are_readable(layers):
    figure = routing_figure.expert_loads(record([IDLE, BUSY, EVEN] * layers, initial=[EVEN, IDLE, EVEN] * layers))
    assert_nothing_overlaps(figure)
    assert figure.get_supxlabel() and figure.get_supylabel() and figure.legends
    assert figure.axes[0].get_title() == f"layer 1 of {3 * layers}, 3 unused"
    before, after, _ = figure.axes[0].lines
    assert after.get_ydata().tolist() == pytest.approx([16 / 13] * 13 + [0] * 3)
    assert before.get_ydata().tolist() == [1] * 16


def test_the_page_draws_few_runs_and_says_which(tmp_path):
    work, planned = synthetic.make(tmp_path / "w")
    for run in planned[:6]:
        folder = synthetic.finish(work, run)
        folder.write_routing(record([EVEN, BUSY], name=run.name))
    text = read_page(work).text
    assert f"Layer 2 of {planned[0].name}: the load of the busiest expert is 10.0 × the mean." in text
    assert f"Drawn are {MOST_ROUTINGS} of 6 inspected runs" in text
    drawn = [name for name in drawings(read(work)) if name.startswith("routing_")]
    assert len(drawn) == MOST_ROUTINGS and f"routing_{planned[0].name}" in drawn


def test_a_damaged_record_is_named_and_hides_no_other(tmp_path):
    work, planned = synthetic.make(tmp_path / "w")
    for run in planned[:2]:
        synthetic.finish(work, run).write_routing(record([IDLE], name=run.name))
    change(work.run_dir(planned[0].name).path / "routing.json", trained=[])
    text = read_page(work).text
    assert "routing.json: is damaged" in text and f"Layer 1 of {planned[1].name}" in text
