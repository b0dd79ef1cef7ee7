"""What each config field decides; schema.py and moe.py declare it, identity.py reads it.

    RESULT   the numbers that the run ends in: runs that differ here have different config hashes
    TRUNK    the steps that branches share: runs that differ here branch off different trunks
    PACK     the program that trains several runs together: runs that differ here are not packed
    STEP     the compiled train step: runs that differ here are compiled apart

Four combinations cover nearly all fields:

    CONSTANT   of the result, and compiled into the step: a width, the optimizer's betas
    VALUE      of the result, but not compiled: the step gets it as a number, or it is used around the step
    PROGRAM    of the compiled step, but not of the result: microbatches, rematerialisation
    HOW        of neither: mesh, checkpoints, logs. (A pack has one of each, so its runs agree in them.)
"""

import dataclasses
import enum
from typing import Any


class Enters(enum.Flag):
    """Identities of a run that a field is a part of."""

    RESULT = enum.auto()
    TRUNK = enum.auto()
    PACK = enum.auto()
    STEP = enum.auto()


RESULT, TRUNK, PACK, STEP = Enters
CONSTANT = RESULT | TRUNK | PACK | STEP
VALUE = RESULT | TRUNK | PACK
PROGRAM = PACK | STEP
HOW = PACK


def enters(what: Enters) -> Any:
    """A dataclass field, without a default, that is part of these identities."""
    return dataclasses.field(metadata={"enters": what})


def entered_by(field: dataclasses.Field) -> Enters:
    """What the field enters. Raises TypeError where it does not say."""
    if "enters" not in field.metadata:
        raise TypeError(f"the config field {field.name} does not say what it enters: write `{field.name} = enters(…)`")
    return field.metadata["enters"]
