"""Forecasts one train step on a TPU slice: whether it fits in memory, and the least time it takes."""

import dataclasses
from collections.abc import Callable
from typing import Any

from moe_jax.chips import CHIPS
from moe_jax.config.identity import StepShape
from moe_jax.errors import Stopped, UserError
from moe_jax.plan import placement as placement_lib
from moe_jax.plan.aot import Compiled, Topology
from moe_jax.plan.compiles import Request
from moe_jax.plan.placement import Placement
from moe_jax.plan.roofline import Work, roofline

# The slices that Google Cloud offers, by the number of dimensions of their shape; `auto` tries them in this order.
_SLICES = {
    2: ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    3: ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
}
_STATE_BYTES = 12  # a parameter needs at least: itself and Adam's two moments, float32


@dataclasses.dataclass(frozen=True)
class Target:
    """The slices to forecast for: `topology` names a slice, or auto:CHIP for the smallest that fits."""

    topology: str
    slices: int
    pick: bool  # look for a mesh and microbatches that fit, instead of the config's

    @property
    def candidates(self) -> tuple[Topology, ...]:
        """The slices to try, the smallest first. Raises UserError for a topology that does not exist."""
        if self.topology.partition(":")[0] != "auto":
            return (Topology(self.topology, self.slices),)
        chip = self.topology.partition(":")[2] or "v5e"
        if chip not in CHIPS:
            raise UserError(f"--topology={self.topology}: there is no chip {chip!r}; there are {', '.join(CHIPS)}")
        shapes = _SLICES[CHIPS[chip].dimensions]
        return tuple(Topology(f"{chip}:{shape}", self.slices) for shape in shapes)


@dataclasses.dataclass(frozen=True)
class StepForecast:
    """One step on one slice. Where `compiled` is None it cannot run there; `reason` says why."""

    topology: Topology
    placement: Placement | None
    compiled: Compiled | None
    reason: str | None

    @property
    def fits(self) -> bool:
        return self.compiled is not None and self.compiled.fits

    @property
    def bytes_per_device(self) -> int:
        return self.compiled.bytes_per_device

    def columns(self, step_flops: float) -> dict[str, Any]:
        """The columns of plan.json for a step of `step_flops` FLOPs (counts.train_flops); None where unknown."""
        c = self.compiled
        bounds = None if c is None else roofline(self._work(step_flops), self.topology.chip)
        return {
            "topology": self.topology.name,
            "slices": self.topology.slices,
            "chips": self.topology.chips,
            "devices": self.topology.n_devices,
            "mesh": None if self.placement is None else dataclasses.asdict(self.placement.mesh),
            "microbatches": None if self.placement is None else self.placement.microbatches,
            "fits": self.fits,
            "reason": self.reason,
            "bytes_per_device": None if c is None else c.bytes_per_device,
            "hbm_bytes": self.topology.hbm_bytes,
            "step_seconds": None if bounds is None else bounds.seconds,
            "bound": None if bounds is None else bounds.bound,
            "seconds": None if bounds is None else dataclasses.asdict(bounds),
            "compiled": None if c is None else c.to_dict(),
        }

    def _work(self, step_flops: float) -> Work:
        c = self.compiled
        return Work(
            flops=step_flops / self.topology.n_devices,
            hbm_bytes=c.hbm_traffic,
            ici_bytes=sum(c.collectives.values()),
            dcn_bytes=sum(c.between_slices.values()),
        )


def forecast_step(shape: StepShape, n_total: int, target: Target, get: Callable[[Request], Compiled]) -> StepForecast:
    """Forecasts a step of `n_total` parameters on the first slice of `target` that it fits on, else on the largest.
    `get` compiles a request."""
    found = None
    for topology in target.candidates:
        least = _STATE_BYTES * n_total / topology.n_devices
        if least > topology.hbm_bytes and topology != target.candidates[-1]:
            continue  # not even the state fits, however it is sharded
        found = _forecast_on(shape, topology, target.pick, get)
        if found.fits:
            break
    return found


def _forecast_on(shape: StepShape, topology: Topology, pick: bool, get: Callable[[Request], Compiled]) -> StepForecast:
    def attempt(placement: Placement) -> StepForecast:
        compiled = get(Request(shape, topology.name, topology.slices, placement))
        return StepForecast(topology, placement, compiled, None)

    try:
        if pick:
            return placement_lib.pick(shape.config, topology.n_devices, topology.slices, attempt)
        return attempt(placement_lib.configured(shape.config, topology.n_devices))
    except Stopped:
        raise
    except UserError as e:
        return StepForecast(topology, None, None, str(e))
