"""What a fit can take: rows, starts, bootstrap samples. Time and memory are in proportion to rows × samples."""

from moe_jax import errors
from moe_jax.laws.objective import THINNED

ROWS = 1_000_000
FITS = 200  # in one command: groups × losses
COUNTED = 1_000_000_000  # rows × samples: a byte each


def refuse_rows(rows: int) -> None:
    """Raises UserError for a table with more rows than a fit can take."""
    if rows > ROWS:
        raise errors.UserError(
            f"there are {rows:,} rows to fit, and a fit takes at most {ROWS:,}; --where (where) selects some"
        )


def refuse_fits(fits: int) -> None:
    """Raises UserError for more groups × losses than one command fits."""
    if fits > FITS:
        raise errors.UserError(
            f"groups × losses are {fits:,} fits, and at most {FITS} are made at once; --group_by (group_by) names a"
            " column of few values"
        )


def refuse_starts(rows: int, starts: int) -> None:
    """Raises UserError for more starts than can be searched on these rows."""
    searched = min(rows, THINNED)
    if starts * searched > COUNTED:
        raise errors.UserError(
            f"{starts:,} starts on {searched:,} rows are {starts * searched:,} losses at each step, and a fit takes at"
            f" most {COUNTED:,}; --starts={COUNTED // searched} (start) fits"
        )


def refuse_samples(rows: int, samples: int) -> None:
    """Raises UserError for more bootstrap samples than can be drawn from these rows."""
    if samples * rows > COUNTED:
        raise errors.UserError(
            f"{samples:,} bootstrap samples of {rows:,} rows are {samples * rows:,} draws, and a fit takes at most"
            f" {COUNTED:,}; --bootstrap={COUNTED // rows} (resampling) fits"
        )


def refuse_leaving_out(rows: int) -> None:
    """Raises UserError for more rows than can be left out of a fit in turn."""
    if rows**2 > COUNTED:
        raise errors.UserError(
            f"a fit without each of {rows:,} rows in turn counts {rows**2:,} rows, and at most {COUNTED:,} can be"
            f" counted; --where (where) selects up to {int(COUNTED**0.5):,}, or leave out --leverage"
        )
