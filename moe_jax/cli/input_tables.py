"""Tables that a flag names: read as a fit reads its results, refused in a sentence that names the flag."""

from etils import epath

from moe_jax.errors import UserError


def read(path: str, flag: str):
    """The table as a DataFrame. Raises UserError for a missing, unreadable or empty one."""
    from moe_jax.laws import rows

    if not epath.Path(path).exists():
        raise UserError(f"{flag} {path}: there is no such file")
    table, _ = rows.read(path)
    if table.empty:
        raise UserError(f"{flag} {path}: has no rows")
    return table
