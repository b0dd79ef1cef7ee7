"""Counts the bytes that a compiled program reads from and writes to a device's main memory (HBM).

The rules are those of XLA's own cost analysis, but a loop's body counts as often as it runs. An instruction reads its
operands and writes its output; one that reads or updates a slice moves the slice alone, inside a fusion too, and an
attention kernel (kernels.py) reads its blocks again. Arrays that the layout keeps in another memory (`S(1)`: on the
chip) do not count.
"""

import math
import re

from moe_jax.plan import hlo
from moe_jax.plan.hlo import Instruction, Program

_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all",
    "async-start", "async-update", "opt-barrier", "optimization-barrier", "partition-id", "replica-id", "copy-done",
    "send", "send-done", "recv", "recv-done", "domain", "add-dependency",
}  # fmt: skip
_TAKE = ("dynamic-slice", "slice", "gather")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")


def traffic(program: Program) -> float:
    """Bytes of one run of the program on one device."""
    fused = {i.attribute("calls") for _, i, _ in program.walked if i.opcode == "fusion"}
    return float(
        sum(
            times * _moved(program, name, instruction)
            for name, instruction, times in program.walked
            if name not in fused
        )
    )


def _moved(program: Program, name: str, instruction: Instruction) -> float:
    """Bytes that one instruction of the computation `name` moves, each time."""
    opcode, around = instruction.opcode, program.computations[name]
    if opcode in _FREE or opcode.endswith("-done"):
        return 0
    operands = [hbm_bytes(around[o].shape) for o in instruction.operands]
    if opcode == "fusion":
        return _moved_by_fusion(program, instruction, operands)
    if opcode.removesuffix("-start") in _TAKE and opcode.endswith("-start"):
        taken = _ARRAY.findall(instruction.shape)[1]  # behind the operand
        text = f"{taken[0]}[{taken[1]}]{{{taken[2]}}}"
        return _size(text) + hbm_bytes(text)
    if opcode.endswith("-start"):  # its output is a tuple of the operands and its results
        return sum(operands) + max(0, hbm_bytes(instruction.shape) - sum(operands))
    if opcode in _TAKE:
        return 2 * hbm_bytes(instruction.shape)
    if opcode == "dynamic-update-slice":
        return 2 * operands[1]
    if opcode == "scatter":
        return sum(operands[1:]) + 2 * operands[-1]
    if kernel := program.kernel(name, instruction):
        operands = [times * size for times, size in zip(kernel.reads, operands, strict=True)]
    return sum(operands) + hbm_bytes(instruction.shape)


def _moved_by_fusion(program: Program, fusion: Instruction, operands: list[float]) -> float:
    inside = program.computations[fusion.attribute("calls")]
    read = 0.0
    for instruction in inside.values():
        if instruction.opcode == "parameter" and operands[int(instruction.arguments)]:
            read += min(_read(program, instruction, inside), operands[int(instruction.arguments)])
    root = program.roots[fusion.attribute("calls")]
    outputs = [inside[o] for o in root.operands] if root.opcode == "tuple" else [root]
    shapes = _arrays(fusion.shape)
    # Where an output is itself a tuple, the outputs do not match the arrays of the shape: count all as written.
    if len(outputs) != len(shapes):
        return read + hbm_bytes(fusion.shape)
    return read + sum(min(_written(o, inside), size) for o, size in zip(outputs, shapes, strict=True))


def _read(program: Program, value: Instruction, inside: dict[str, Instruction]) -> float:
    """Bytes of a fusion's parameter that the fusion reads, itself or by a fusion in it."""
    whole, taken = _size(value.shape), 0.0
    uses = [(user, place) for user in inside.values() for place, o in enumerate(user.operands) if o == value.name]
    for user, place in uses:
        if user.opcode == "bitcast":
            taken += _read(program, user, inside)
        elif user.opcode == "fusion":
            within = program.computations[user.attribute("calls")]
            parameters = {i.arguments: i for i in within.values() if i.opcode == "parameter"}
            taken += _read(program, parameters[str(place)], within)
        elif user.opcode in _TAKE and place == 0:
            taken += _size(user.shape)
        elif user.opcode == "dynamic-update-slice" and place == 0:
            continue  # updated in place
        else:
            return whole
    return min(taken, whole)


def _written(output: Instruction, inside: dict[str, Instruction]) -> float:
    """Bytes of a fusion's output that the fusion writes."""
    while output.opcode == "bitcast":
        output = inside[output.operands[0]]
    if output.opcode == "dynamic-update-slice":
        return _size(inside[output.operands[1]].shape)
    return _size(output.shape)


def hbm_bytes(shape: str) -> float:
    """Bytes of a shape's arrays that are in main memory."""
    return sum(_arrays(shape))


def _arrays(shape: str) -> list[float]:
    """Bytes in main memory of each array of a shape."""
    sizes = []
    for dtype, dims, layout in _ARRAY.findall(shape):
        if dtype == "token":
            continue
        elsewhere = re.search(r"S\(([1-9]\d*)\)", layout)
        sizes.append(0.0 if elsewhere else math.prod(int(n) for n in dims.split(",") if n) * hlo.item_bytes(dtype))
    return sizes


def _size(shape: str) -> float:
    """Bytes of a shape in any memory: inside a fusion, layouts do not tell which."""
    return float(hlo.shape_bytes(shape))
