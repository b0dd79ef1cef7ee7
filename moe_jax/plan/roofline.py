"""The least time that one step can take on a slice: the slowest of computing, reading memory and communicating.

Each is the work of the step over the rate that the chip's maker publishes (chips.py), as if all went at full rate at
the same time. This is a lower bound, not a forecast: published trainings of MoE models reach a third to a half of the
roofline's rate.
"""

import dataclasses

from moe_jax.chips import Chip


@dataclasses.dataclass(frozen=True)
class Work:
    """The work of one step on one device."""

    flops: float  # counts.train_flops of the step, divided by the devices
    hbm_bytes: float  # read and written
    ici_bytes: float  # sent to devices of the same slice
    dcn_bytes: float  # sent to devices of other slices


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Least seconds of one step, by resource; `dcn` is None where no bandwidth is published."""

    compute: float
    hbm: float
    ici: float
    dcn: float | None

    @property
    def seconds(self) -> float:
        """Least seconds of one step."""
        return max(self._known.values())

    @property
    def bound(self) -> str:
        """The resource that limits the step: compute, hbm, ici or dcn."""
        return max(self._known, key=self._known.__getitem__)

    @property
    def _known(self) -> dict[str, float]:
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


def roofline(work: Work, chip: Chip) -> Roofline:
    """The roofline of one device. A chip's published rates are shared by its devices; link rates are the sum of both
    directions."""
    share = 1 / chip.devices

    def both_ways(sent: float, bandwidth: float) -> float:
        return 2 * sent / (bandwidth * share)

    if not work.dcn_bytes:
        dcn = 0.0
    else:
        dcn = None if chip.dcn_bandwidth is None else both_ways(work.dcn_bytes, chip.dcn_bandwidth)
    return Roofline(
        compute=work.flops / (chip.peak_flops * share),
        hbm=work.hbm_bytes / (chip.hbm_bandwidth * share),
        ici=both_ways(work.ici_bytes, chip.ici_bandwidth),
        dcn=dcn,
    )
