"""Tables that would be read wrongly in silence are refused, and tables that only look wrong are fitted."""

import numpy as np
import pandas as pd
import pytest

from moe_jax.errors import UserError
from moe_jax.laws import rows
from moe_jax.laws.forms import FORMS


def table(**more):
    """Sixteen cells, whose losses have two decimals."""
    N, D = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, 4), np.geomspace(1e8, 1e10, 4)))
    loss = np.round(1.7 + 400 / N**0.34 + 410 / D**0.28, 2)
    return pd.DataFrame({"n_total": N, "tokens": D, "eval_loss": loss} | more)


def select(frame, **more):
    return rows.select(frame, FORMS["chinchilla"], **more)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda line: f"{line},", "line 2 has 4 fields, the header 3"),
        (lambda line: line.rpartition(",")[0], "line 2 has 2 fields, the header 3"),
    ],
)
def test_rows_of_another_width_than_the_header_are_refused(tmp_path, spoil, words):
    """pandas would shift every column by one."""
    path = tmp_path / "runs.csv"
    header, *lines = table().to_csv(index=False).splitlines()
    path.write_text("\n".join([header, *lines]) + "\n\n")
    read, _ = rows.read(path)
    assert list(read.columns) == ["n_total", "tokens", "eval_loss"] and len(read) == 16
    path.write_text("\n".join([header, *map(spoil, lines)]))
    with pytest.raises(UserError, match=words):
        rows.read(path)


def test_a_quoted_comma_is_no_field(tmp_path):
    path = tmp_path / "runs.csv"
    table(note='a, "b"\nc').to_csv(path, index=False)
    assert len(rows.read(path)[0]) == 16


def test_seeds_whose_printed_losses_tie_are_runs_of_their_own():
    twice = pd.concat([table(seed=0), table(seed=1)], ignore_index=True)
    assert len(select(twice)) == 32
    with pytest.raises(UserError, match="16 rows repeat another's axes, loss and all but its name"):
        select(pd.concat([table(seed=0, name=range(16)), table(seed=0, name=range(16, 32))], ignore_index=True))


def test_learning_rates_that_tie_keep_one_run_a_cell():
    tried = pd.concat([table(learning_rate=r) for r in (1e-3, 2e-3, 4e-3)], ignore_index=True)
    assert len(select(tried, best_of="learning_rate")) == 16
