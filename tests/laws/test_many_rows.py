"""Large tables: chunks and groups give the numbers of the whole, and arrays do not grow with rows × problems."""

import jax
import numpy as np
import pytest

from moe_jax import errors, laws
from moe_jax.laws import bootstrap, levenberg_marquardt, limits, objective, starts
from tests.planted_laws import planted_runs

FORM = laws.get("krajewski2024")


def problem(rows, huber=1e-2):
    table, _ = planted_runs(FORM, rows, noise=0.02)
    columns = {s: table[c] for s, c in FORM.columns.items()}
    return objective.Problem(FORM, columns, table["eval_loss"], laws.Objective(huber=huber))


@pytest.fixture
def small(monkeypatch):
    """Makes 45 rows a large table: chunks of 8 rows (the last is shorter), groups of 8 problems."""

    def shrink():
        monkeypatch.setattr(objective, "WHOLE", 20)
        monkeypatch.setattr(levenberg_marquardt, "WHOLE", 20)
        monkeypatch.setattr(objective, "CHUNK", 8)
        for kernel in (objective.normal_equations_kernel, objective.values_kernel):
            kernel.cache_clear()

    yield shrink
    for kernel in (objective.normal_equations_kernel, objective.values_kernel):
        kernel.cache_clear()


def test_a_large_table_is_summed_screened_and_resampled_as_a_small_one(small):
    some, free, told = problem(45), np.array([name in ("g", "a", "b") for name in FORM.names]), []
    at, few = FORM.inner(FORM.published["E=64"]), laws.Resampling(samples=11)
    theta, weights = starts.draw(FORM, 128, {}), np.random.default_rng(0).uniform(0, 2, (128, 45))

    def everything(ended=None):
        sums = some.normal_equations(theta[:8], weights[:8])
        return [*sums, starts.screen(some, theta, 3), *bootstrap.resample(some, at, free, few, ended).values()]

    whole = everything()
    small()
    chunked = everything(lambda done, of: told.append((done, of)))
    for one, other in zip(whole, chunked, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-9 * np.abs(one).max())
    assert told[-1] == (11, 11) and told == sorted(told)


def test_starts_on_a_part_of_the_rows_reach_the_minimum_of_all(monkeypatch):
    some, free = problem(60), np.array([name in ("g", "a", "b") for name in FORM.names])
    begin = starts.draw(FORM, 4, {}) + np.where(free, 0.3, 0)
    begin[:, ~free] = begin[0, ~free]
    _, best, _ = levenberg_marquardt.search(some, begin, free)
    monkeypatch.setattr(objective, "THINNED", 30)
    part = some.thinned()
    assert len(part.losses) == 30 and set(part.losses) <= set(some.losses)
    alone = levenberg_marquardt.minimise(part, begin, free_BxP=free).theta
    theta, found, _ = levenberg_marquardt.search(some, begin, free)
    assert found == pytest.approx(best, rel=1e-9)
    assert np.abs(alone - theta).max() > 1e-3  # the part's own minimum is another


def test_counts_take_a_byte_and_are_those_of_all_samples_drawn_at_once():
    for few in (laws.Resampling(samples=5, seed=3), laws.Resampling(samples=5, fraction=0.8, replace=False, seed=3)):
        counts, rng, size = few.counts(30), np.random.default_rng(3), round(30 * few.fraction)
        together = (
            rng.multinomial(size, np.full(30, 1 / 30), size=5)
            if few.replace
            else rng.permuted(np.tile(np.arange(30), (5, 1)), axis=1) < size
        )
        assert counts.dtype == np.uint8
        np.testing.assert_array_equal(counts, together)


@pytest.mark.parametrize(
    ("kernel", "problems", "weights"),
    [
        (objective.normal_equations_kernel, levenberg_marquardt.GROUP, (levenberg_marquardt.GROUP, 100_000)),
        (objective.values_kernel, 4096, (100_000,)),
    ],
)
def test_a_step_on_100_000_rows_allocates_what_a_chunk_needs(kernel, problems, weights):
    shapes = (problems, 7), weights, ((100_000,),) * 3, weights, (100_000,), (4,)
    with jax.enable_x64(True):
        given = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, float), shapes, is_leaf=lambda s: isinstance(s[0], int))
        memory = kernel(FORM, "log").lower(*given).compile().memory_analysis()
    assert memory.argument_size_in_bytes > 8 * 100_000 * 4
    assert memory.temp_size_in_bytes < 12 * 2**20


@pytest.mark.parametrize(
    ("refuse", "numbers", "sentence"),
    [
        (limits.refuse_rows, (1_000_001,), "1,000,001 rows to fit, and a fit takes at most 1,000,000; --where"),
        (limits.refuse_starts, (100_000, 300_000), "300,000 starts on 4,096 rows .* --starts=244140"),
        (limits.refuse_samples, (100_000, 10_001), "10,001 bootstrap samples of 100,000 rows .* --bootstrap=10000"),
        (limits.refuse_leaving_out, (40_000,), "without each of 40,000 rows .* up to 31,622"),
    ],
)
def test_more_than_fits_is_refused_with_what_does(refuse, numbers, sentence):
    with pytest.raises(errors.UserError, match=sentence):
        refuse(*numbers)
    refuse(*(n // 10 for n in numbers))
