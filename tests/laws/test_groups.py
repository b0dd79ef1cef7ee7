"""One law for each group and loss: each is the fit of that group's rows alone."""

import numpy as np
import pandas as pd
import pytest

from moe_jax import laws
from moe_jax.errors import UserError
from moe_jax.laws import limits
from tests.planted_laws import QUICK
from tests.planted_laws import grid as cells

VALUES = ["c4", "it's `web`", 'a "quoted" one\\']


def runs(values=VALUES):
    """A grid of planted losses for each value, off by a factor of its own; a second loss is twice the first."""
    table = pd.DataFrame(cells(3, 3, (1,))).rename(columns={"n_total_nonemb": "n_total"}).drop(columns="granularity")
    loss = laws.published("chinchilla").loss_at({"N": table["n_total"], "D": table["tokens"]})
    parts = [table.assign(dataset=v, eval_loss=loss * (1 + 0.1 * i), twice=2 * loss) for i, v in enumerate(values)]
    return pd.concat(parts, ignore_index=True)


def fits(table, **options):
    return list(laws.fit_groups(table, "chinchilla", group_by="dataset", start=4, resampling=QUICK, **options))


def test_each_group_is_fitted_to_its_rows_alone():
    table = runs()
    found = fits(table, losses=["eval_loss", "twice"], where="tokens > 1e3")
    assert [(one.group, one.loss) for one in found] == [(v, loss) for v in VALUES for loss in ("eval_loss", "twice")]
    E = laws.published("chinchilla").coefficients["E"]
    expected = [E * factor for i in range(3) for factor in (1 + 0.1 * i, 2)]
    assert [one.fit.law.coefficients["E"] for one in found] == pytest.approx(expected, rel=1e-3)
    for one in found:
        assert len(one.fit.rows) == 9 and set(one.fit.rows.table["dataset"]) == {one.group}
        again, _ = laws.rows_of(one.fit.law, table)  # law.json tells which rows they were
        assert again.names == one.fit.rows.names
    rows = laws.tabulate(found)
    assert len(rows) == 6 * 5 and rows["low"].isna().all()
    alone = rows[(rows["group"] == "c4") & (rows["loss"] == "twice")].set_index("coefficient")["value"]
    assert dict(alone) == pytest.approx(dict(found[1].fit.law.coefficients))


@pytest.mark.parametrize("values", [[1, 4, 16], [0.5, 0.1, 1e22], [True, False]], ids=str)
def test_groups_may_be_numbers_and_are_told_apart(values):
    found = fits(runs(values))
    assert [len(one.fit.rows) for one in found] == [9] * len(values)
    assert [one.group for one in found] == [str(v) for v in values]


def test_a_group_that_cannot_be_fitted_leaves_the_others():
    few = runs(["few"]).head(2)
    found = fits(pd.concat([few, runs(["c4"])], ignore_index=True))
    assert found[0].fit is None and "2 rows cannot determine 5 coefficients" in found[0].refused
    assert set(laws.tabulate(found)["group"]) == {"c4"}


def test_columns_that_cannot_group_are_refused_before_the_first_fit(monkeypatch):
    table = runs()
    with pytest.raises(UserError, match=r"no column 'corpus' \(--group_by names it\); the columns are .*, big"):
        list(laws.fit_groups(table, "chinchilla", group_by="corpus", columns={"big": "tokens*2"}))
    with pytest.raises(UserError, match="dataset is empty in 1 row, first row 4: each row belongs to a group"):
        fits(table.assign(dataset=table["dataset"].where(np.arange(len(table)) != 3)))
    monkeypatch.setattr(limits, "FITS", 5)
    with pytest.raises(UserError, match="groups × losses are 6 fits, and at most 5 are made at once"):
        fits(table, losses=["eval_loss", "twice"])
