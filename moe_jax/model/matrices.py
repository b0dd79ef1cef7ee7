"""The matrices that a parameter holds, for optimizers whose update is of a matrix: Muon, and Adafactor's factors.

A parameter of the blocks has a leading axis of layers, and one of the experts an axis of experts too. These count
matrices, and no update may mix them.
"""

import dataclasses
import enum
import math

import jax
import jax.numpy as jnp

# The axes that make a matrix's rows and its columns, of a linear map inside the blocks: rows are what it takes, columns
# what it gives. All heads of a projection are one matrix.
_LINEAR_MAPS = {"w_q": (1, 2), "w_k": (1, 2), "w_v": (1, 2), "w_o": (2, 1), "w_in": (1, 1), "w_out": (1, 1)}


class Role(enum.Enum):
    """What a parameter does, by which of its sides grows with the model's width."""

    LINEAR = enum.auto()  # a linear map inside the blocks: both
    READOUT = enum.auto()  # unembedding, router: what it takes
    EMBEDDING = enum.auto()  # of tokens, of positions: what it gives
    VECTOR = enum.auto()  # a norm's scale, a bias


@dataclasses.dataclass(frozen=True)
class Matrices:
    """How a parameter is read as matrices of `rows` × `columns`; a vector, such as a norm's scale, is one row."""

    shape: tuple[int, ...]  # the parameter's
    counted: int  # its leading axes that count matrices: layers, experts
    row_axes: int  # the axes after them that make the rows; the others make the columns
    parts: int  # 2 where the last axis holds values, then gates: two matrices side by side
    role: Role

    @property
    def rows(self) -> int:
        return math.prod(self.shape[self.counted : self.counted + self.row_axes])

    @property
    def columns(self) -> int:
        return math.prod(self.shape[self.counted + self.row_axes :]) // self.parts

    @property
    def takes_width(self) -> bool:
        """Whether it multiplies hidden states: their width is what it sums over."""
        return self.role in (Role.LINEAR, Role.READOUT)

    @property
    def counts(self) -> tuple[int, ...]:
        """The axes of `split` before the rows."""
        return self.shape[: self.counted] + ((2,) if self.parts == 2 else ())

    def split(self, x: jax.Array) -> jax.Array:
        """The parameter, or what has its shape, as matrices: (*counts, rows, columns)."""
        if self.parts == 1:
            return x.reshape(*self.counts, self.rows, self.columns)
        return jnp.moveaxis(x.reshape(*self.shape[: self.counted], self.rows, 2, self.columns), -2, -3)

    def joined(self, x: jax.Array) -> jax.Array:
        """The inverse of `split`."""
        return (x if self.parts == 1 else jnp.moveaxis(x, -3, -2)).reshape(self.shape)

    def __str__(self) -> str:
        n = math.prod(self.counts)
        return f"{f'{n} of ' if n > 1 else ''}{self.rows}×{self.columns}"


def matrices_of(path: tuple[str, ...], shape: tuple[int, ...], gated: bool) -> Matrices:
    """The matrices of the parameter at this path of the model.

    Its name tells how many axes are its own: `w_in_ExdxF` has three, whose first counts experts; `scale` has one."""
    name, _, letters = path[-1].rpartition("_")
    own = len(letters.split("x")) if name else 1
    rows, columns = _LINEAR_MAPS.get(name, (min(own - 1, 1), 1))
    parts = 2 if name == "w_in" and gated else 1
    return Matrices(shape, len(shape) - rows - columns, rows, parts, _role(name, own))


def _role(name: str, own_axes: int) -> Role:
    if name in _LINEAR_MAPS:
        return Role.LINEAR
    if name in ("tokens", "positions"):
        return Role.EMBEDDING
    return Role.VECTOR if own_axes == 1 else Role.READOUT
