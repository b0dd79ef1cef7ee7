"""Downstream scores beside the loss: a planted effect of sparsity is found, and none where there is none."""

import numpy as np
import pandas as pd
import pytest

from moe_jax.report import downstream
from moe_jax.report.papers import abnar2025, krajewski2025
from moe_jax.report.papers.sources import Sources
from moe_jax.report.sections import tasks
from tests.pages import assert_nothing_overlaps

LOSSES = (2.0, 2.3, 2.6, 3.0)
SPARSITIES = (0.0, 0.5, 0.75, 0.875)


def rows(effect, noise=0.0, sparsities=SPARSITIES):
    """Runs whose task needs 0.2 + 0.5 · loss + effect · S bits a byte."""
    random = np.random.default_rng(3)
    return [
        {
            "name": f"l{loss}-s{s}", "status": "done", "sparsity": s, "eval_loss": loss + 0.1 * s,
            "n_total_nonemb": 1000, "tokens": 10.0, "active_rate": 1.0, "granularity": 1 + 10 * s,
            "arc_easy_bits_per_byte": 0.2 + 0.5 * (loss + 0.1 * s) + effect * s + noise * random.normal(),
            "arc_easy_accuracy": 0.25 + 0.1 * s, "arc_easy_accuracy_stderr": 0.01,
        }
        for loss in LOSSES
        for s in sparsities
    ]  # fmt: skip


@pytest.mark.parametrize(("effect", "words"), [(0.3, "needs more"), (-0.3, "needs less"), (0.0, "no effect")])
def test_a_planted_effect_is_found(effect, words):
    (found,) = downstream.effects(rows(effect, noise=0.01), ["arc_easy"])
    assert found.slope == pytest.approx(effect, abs=3 * found.stderr) and 0 < found.stderr < 0.02
    assert found.runs == 16 and words in found.sentence


def test_one_sparsity_or_too_few_runs_tell_nothing():
    assert downstream.effects(rows(0.3, sparsities=(0.5,)), ["arc_easy"]) == []
    assert downstream.effects(rows(0.3)[:3], ["arc_easy"]) == []


def test_the_section_has_every_scored_run():
    given = rows(0.3)
    del given[0]["arc_easy_bits_per_byte"]
    section = tasks.tasks(given)
    assert len(section.table.rows) == 15 and section.table.rows[0][3:] == ["30.0% ± 1.0%", "1.375"]
    assert section.table.headings[3:] == [">arc_easy: accuracy", ">arc_easy: bits/byte"]
    assert tasks.tasks([{k: v for k, v in row.items() if "arc" not in k} for row in given]) is None


def test_the_figure_shows_every_run_once():
    figure = downstream.against_loss(rows(0.3), ["arc_easy"])
    (ax,) = figure.axes
    points = {tuple(p) for line in ax.lines for p in line.get_xydata()}
    assert points == {(row["eval_loss"], row["arc_easy_bits_per_byte"]) for row in rows(0.3)}
    assert_nothing_overlaps(figure)


def test_pages_of_papers_have_tasks_beside_losses():
    ours = pd.DataFrame(rows(0.3))
    (item,) = krajewski2025._our_tasks(ours)
    (cells,) = item.content[0].rows  # one (N, D, K): means over losses
    assert cells[4:] == ["+0.0875", "+0.088", "+0.306"]  # S from 0 to .875: loss, accuracy, 0.5 · 0.0875 + 0.3 · 0.875
    figure = abnar2025._figure_5(ours)
    assert "needs more" in figure.content[0].sentences[0]
    empty = abnar2025._figure_5(ours[["name", "eval_loss", "sparsity"]])
    assert "No run of ours was scored" in empty.content[0].text


def test_sources_without_runs_have_no_such_items():
    said, items = abnar2025.reproduce(Sources("abnar2025", None))
    assert said and not any("tasks at equal loss" in item.title for item in items)
