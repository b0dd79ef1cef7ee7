"""Stands for the compiler for TPU slices."""

import dataclasses

from moe_jax.plan.aot import Compiled, Topology
from moe_jax.plan.compiles import Request

GIB = 2**30


class FakeCompiler:
    """Says that a step needs `fixed` bytes, and `parts` more over its microbatches, on every device."""

    def __init__(self, fixed: float = GIB, parts: float = 0.0, per_device: bool = False):
        self.fixed, self.parts, self.per_device = fixed, parts, per_device
        self.asked: list[Request] = []

    def __call__(self, request: Request) -> Compiled:
        self.asked.append(request)
        topology = Topology(request.topology, request.slices)
        cut = topology.n_devices if self.per_device else 1
        needed = int((self.fixed + self.parts / request.placement.microbatches) / cut)
        told = {field.name: 0 for field in dataclasses.fields(Compiled)} | {
            "topology": request.topology, "slices": request.slices,
            "mesh": dataclasses.asdict(request.placement.mesh), "bytes_per_device": needed,
            "hbm_bytes": topology.hbm_bytes, "fits": needed <= topology.hbm_bytes, "hbm_traffic": 8e9,
            "collectives": {"all-to-all": 3e9, "all-gather": 1e9},
            "between_slices": {"all-reduce": 5e8} if request.slices > 1 else {},
        }  # fmt: skip
        return Compiled(**told)
