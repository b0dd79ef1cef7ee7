"""eval.stores: NAME=FOLDER for each held-out part that a finished run is also evaluated on."""

import re
from collections.abc import Mapping, Sequence

from moe_jax.config.checks import refuse
from moe_jax.files import refuse_foreign

COLUMN_PART = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")  # a name that columns of results.csv can carry
TAKEN = ("capacity",)  # eval_loss_capacity is a column of every run


def check(stores: Sequence[str]) -> None:
    """Refuses the first entry that is not NAME=FOLDER, with a name of its own that columns can carry."""
    seen = set()
    for entry in stores:
        name, equals, folder = entry.partition("=")
        if not (equals and folder):
            refuse("eval.stores", entry, "must be NAME=FOLDER, for example code=stores/code")
        refuse_foreign(folder, f"config.eval.stores: {name}")
        if not COLUMN_PART.fullmatch(name):
            refuse(
                "eval.stores", entry,
                "its name must be of lower-case letters, digits and _, at most 64 of them: columns are named after it",
            )  # fmt: skip
        if name in TAKEN:
            refuse("eval.stores", entry, f"eval_loss_{name} is another column; choose another name")
        if name in seen:
            refuse("eval.stores", entry, f"the name {name} is given twice")
        seen.add(name)


def by_name(stores: Sequence[str]) -> Mapping[str, str]:
    """The folders by their names, in the order given."""
    return dict(entry.split("=", 1) for entry in stores)
