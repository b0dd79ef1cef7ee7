"""The least time that one step can take on a slice: the slowest of computing, reading memory and exchanging.

Each is what has to be done over what the chip's maker publishes (chips.py), as if it went at full rate and beside the
others. So it is a bound from below, and no forecast: published trainings of MoE models reach a third to a half of it.
"""

import dataclasses

from moe_jax.chips import Chip


@dataclasses.dataclass(frozen=True)
class Work:
    """What one step asks of one device."""

    flops: float  # counts.train_flops of the step over the devices
    hbm_bytes: float  # read and written
    ici_bytes: float  # sent to devices of the same slice
    dcn_bytes: float  # sent to devices of other slices


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that one step takes at least, by what it waits for; `dcn` is None where no bandwidth is published."""

    compute: float
    hbm: float
    ici: float
    dcn: float | None

    @property
    def seconds(self) -> float:
        """Of a step."""
        return max(self._known.values())

    @property
    def bound(self) -> str:
        """What the step waits for: compute, hbm, ici or dcn."""
        return max(self._known, key=self._known.__getitem__)

    @property
    def _known(self) -> dict[str, float]:
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


def roofline(work: Work, chip: Chip) -> Roofline:
    """Of one device; what is given for a chip is shared by its devices, and goes both ways on its links."""
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
