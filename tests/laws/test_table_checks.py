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
        (lambda line: f"{line},", "rows have 4 fields, the header 3"),
        (lambda line: line.rpartition(",")[0], "rows have 2 fields, the header 3"),
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


def test_losses_that_tie_over_another_column_are_runs_of_their_own():
    """Losses have few digits. A note says so, since copies under new names look the same."""
    twice = pd.concat([table(seed=0), table(seed=1)], ignore_index=True)
    for tied in (twice, twice.rename(columns={"seed": "learning_rate"}), twice.assign(seed=0, name=range(32))):
        found = select(tied)
        assert len(found) == 32
        assert "16 rows with another's axes and loss, first " in " ".join(found.notes)
    assert not any("another's" in note for note in select(table()).notes)


def test_a_repeat_is_a_row_equal_in_all_columns_or_in_name_or_hash():
    same = pd.concat([table(seed=0), table(seed=0).head(2)], ignore_index=True)
    with pytest.raises(UserError, match="2 rows equal another in all columns, first row 17: a run counts once"):
        select(same)
    with pytest.raises(UserError, match="2 rows equal another"):  # the numbers that pandas writes tell nothing apart
        select(same.assign(**{"Unnamed: 0": range(18)}))
    for key in ("name", "config_hash"):
        with pytest.raises(UserError, match=f"16 rows repeat a {key}, first '0'"):
            select(pd.concat([table(seed=s, **{key: [str(i) for i in range(16)]}) for s in (0, 1)], ignore_index=True))


def test_learning_rates_that_tie_keep_one_run_a_cell():
    """--best_of comes before the search for repeats, which finds none then."""
    tried = pd.concat([table(learning_rate=r) for r in (1e-3, 2e-3, 4e-3, 4e-3)], ignore_index=True)
    kept = select(tried, best_of="learning_rate")
    assert len(kept) == 16 and not any("another's" in note for note in kept.notes)


def test_texts_that_are_numbers_are_read_in_columns_expressions_and_conditions():
    texts = table().assign(n_total=lambda t: [f"{n / 1e6!r}M" for n in t["n_total"]], share="50%")
    expected = select(table()).columns["N"]
    np.testing.assert_allclose(select(texts).columns["N"], expected, rtol=1e-15)
    np.testing.assert_allclose(select(texts, columns={"N": "n_total*share"}).columns["N"], expected / 2, rtol=1e-15)
    assert len(select(texts, where="n_total > 5e7 and share == 0.5")) == 8


def test_a_cell_that_is_no_number_is_named_with_its_row():
    wrong = table().astype({"tokens": object})
    wrong.loc[7, "tokens"] = "1.4 billion"
    with pytest.raises(
        UserError, match=r"tokens is not a number \(1.4 billion\) in 1 row, first row 8: .*as 1.4e9, 1.4B"
    ):
        select(wrong)
    wrong.loc[7, "tokens"] = "1,400"
    with pytest.raises(
        UserError, match=r"\(1,400\) in 1 row, first row 8: with one comma it may be a decimal or thousands"
    ):
        select(wrong)
    with pytest.raises(UserError, match="first row 8"):  # also counted where rows before it are left out
        select(wrong, where="n_total > 1.1e7")


def test_messages_list_the_columns_that_were_made_too():
    columns = {"N": "2*n_total", "budget": "6*N*tokens"}
    assert select(table(), columns=columns).table["budget"][0] == pytest.approx(6 * 2e7 * 1e8)
    with pytest.raises(UserError, match=r"the columns are n_total, tokens, eval_loss, .*N, budget$"):
        select(table(), columns=columns, loss="loss")
    with pytest.raises(UserError, match=r"no column 'flops'; the columns are n_total, .*N, budget$"):
        select(table(), columns=columns, where="flops > 1")


def test_a_frame_with_two_columns_of_one_name_is_refused():
    with pytest.raises(UserError, match="the table has 2 columns named 'tokens'"):
        rows.load(pd.concat([table(), table()[["tokens"]]], axis=1))


@pytest.mark.parametrize("given", [{"n_total": [1e8, 2e8], "tokens": [1e9]}, {"n_total": 1e8}, 3, None])
def test_what_is_no_table_is_refused(given):
    with pytest.raises(UserError, match="a table is a file, a DataFrame, or columns of one length by name"):
        rows.load(given)
