"""Counts collectives and matrix products in the text of a compiled program (HLO), loop bodies as often as they run.

XLA's own cost analysis counts the body of a loop once and ignores collectives. Here each instruction counts as often as
it runs; a loop's count is read from its condition (the scans of a train step count up from 0 in ones).
"""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterator

import numpy as np

from moe_jax.plan.kernels import Kernel, attention_kernel

_BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16}
_COLLECTIVES = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all",
    "collective-broadcast",
)  # fmt: skip
_NAME = re.compile(r"%([\w.\-]+)")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of the program."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    rest: str  # the text behind the operands
    arguments: str  # the operands as text: a constant's value

    def attribute(self, name: str) -> str | None:
        """The computation that an attribute names."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        return found and found[1]

    @property
    def op_name(self) -> str:
        """The operation's name as JAX gives it, a path; that of an einsum contains its formula."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Collective:
    """An exchange between devices: `bytes` is what each device sends, and receives, each time, by the best ring
    algorithm. It has no op_name: the compiler drops the name of a collective that it makes asynchronous."""

    kind: str
    bytes: float
    groups: np.ndarray  # (groups, devices of a group), positions in the program's device order
    times: int


@dataclasses.dataclass(frozen=True)
class Product:
    """A matrix product, or a Pallas kernel that states its FLOPs."""

    flops: float  # each time; a multiply-add is 2
    times: int
    op_name: str


class Program:
    """The text of an optimised HLO module."""

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.roots: dict[str, Instruction] = {}
        self.unknown_loops = 0  # loops whose count could not be read: their bodies count once
        current = None
        for line in _whole_lines(text):
            if line.endswith("{") and " -> " in line and " = " not in line.split("(", 1)[0]:
                name = line.removeprefix("ENTRY ").lstrip("%").split(" ", 1)[0]
                current = self.computations.setdefault(name, {})
                if line.startswith("ENTRY "):
                    self._entry = name
            elif current is not None and " = " in line:
                instruction = _parse(line)
                current[instruction.name] = instruction
                if line.lstrip().startswith("ROOT "):
                    self.roots[name] = instruction
        self.walked = list(self._walk(self._entry, 1))

    def _walk(self, name: str, times: int) -> Iterator[tuple[str, Instruction, int]]:
        """Yields (computation, instruction, how often it runs) for this computation and all that it calls."""
        for instruction in self.computations[name].values():
            yield name, instruction, times
            if instruction.opcode == "while":
                trips = self._trips(name, instruction)
                yield from self._walk(instruction.attribute("body"), times * trips)
            elif instruction.opcode == "conditional":
                for branch in _branches(instruction):
                    yield from self._walk(branch, times)
            elif instruction.opcode in ("fusion", "call", "custom-call") or instruction.opcode.endswith("-start"):
                for called in {instruction.attribute("calls"), instruction.attribute("to_apply")} - {None}:
                    yield from self._walk(called, times)

    def _trips(self, name: str, loop: Instruction) -> int:
        condition = loop.attribute("condition")
        initial = self._follow(name, loop.operands[0])
        limit = self._limit(condition, initial, name)
        if limit is None:
            self.unknown_loops += 1
            return 1
        return limit

    def _limit(self, condition: str, initial: Instruction | None, outside: str) -> int | None:
        """The number that the condition compares the counter with: a constant, or a value that the loop carries."""
        root = self.roots[condition]
        if root.opcode == "fusion":
            inner = self.roots[root.attribute("calls")]
            operands = [self._argument(root, inner, o) for o in inner.operands]
            direction = inner.rest
        else:
            operands, direction = list(root.operands), root.rest
        if "direction=LT" not in direction or len(operands) != 2 or operands[1] is None:
            return None
        limit = self._follow(condition, operands[1])
        if limit is not None and limit.opcode == "get-tuple-element" and initial is not None:
            limit = self._follow(outside, initial.operands[int(re.search(r"index=(\d+)", limit.rest)[1])])
        return int(limit.arguments) if limit is not None and limit.opcode == "constant" else None

    def _argument(self, fusion: Instruction, inner: Instruction, operand: str) -> str | None:
        """The operand that the fusion's caller passes for a parameter of the fused computation."""
        inside = self.computations[fusion.attribute("calls")][operand]
        return fusion.operands[int(inside.arguments)] if inside.opcode == "parameter" else None

    def _follow(self, name: str, operand: str) -> Instruction | None:
        """The instruction that computes a value, looking through copies."""
        found = self.computations[name].get(operand)
        while found is not None and found.opcode in ("copy", "bitcast", "copy-done", "copy-start"):
            found = self.computations[name].get(found.operands[0])
        return found

    @functools.cached_property
    def collectives(self) -> list[Collective]:
        found = []
        for name, instruction, times in self.walked:
            kind = instruction.opcode.removesuffix("-start")
            if kind not in _COLLECTIVES:
                continue
            if name.startswith("all-reduce-scatter"):  # the TPU compiler's reduce-scatter: a fusion that keeps a part
                kind = "reduce-scatter"
            groups = _groups(instruction.rest)
            given = sum(shape_bytes(self.computations[name][o].shape) for o in instruction.operands)
            found.append(Collective(kind, given * _sent(kind, groups.shape[1]), groups, times))
        return found

    def transfers(self, slices: int) -> list[Collective]:
        """Collectives between slices; the compiler turns them into transfers by the hosts (megascale)."""
        found = []
        for name, instruction, times in self.walked:
            said = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.rest)
            if instruction.opcode == "send" and said:
                kind = said[1].lower().replace("_", "-")
                given = shape_bytes(self.computations[name][instruction.operands[0]].shape)
                found.append(Collective(kind, given * _sent(kind, slices), np.zeros((0, slices), int), times))
        return found

    def kernel(self, name: str, instruction: Instruction) -> Kernel | None:
        """The attention kernel that an instruction of computation `name` calls."""
        if instruction.opcode != "custom-call":
            return None
        shapes = [self.computations[name][o].shape for o in instruction.operands]
        masks = len(list(itertools.takewhile(_is_integer, shapes)))
        operands, results = list(map(_dims, shapes)), len(_ARRAY.findall(instruction.shape))
        return attention_kernel(instruction.op_name, instruction.rest, masks, operands, results)

    @functools.cached_property
    def products(self) -> list[Product]:
        found = []
        for name, instruction, times in self.walked:
            if instruction.opcode in ("dot", "convolution"):
                shapes = [_dims(self.computations[name][o].shape) for o in instruction.operands]
                flops = (_dot if instruction.opcode == "dot" else _convolution)(instruction, *shapes)
            elif instruction.opcode == "custom-call" and (cost := re.search(r'"flops":"?(\d+)', instruction.rest)):
                flops = float(cost[1])
            elif kernel := self.kernel(name, instruction):
                flops = kernel.flops
            else:
                continue
            found.append(Product(flops, times, instruction.op_name))
        return found


def _whole_lines(text: str) -> list[str]:
    """The program's lines; what a Pallas kernel states of itself is broken over several, which are put together."""
    return re.sub(r"(kernel_metadata=\{)\n(.*)\n\}", r"\1\2}", text).splitlines()


def _sent(kind: str, n: int) -> float:
    """Bytes that each of n devices sends for each byte of its operand."""
    return {"all-gather": n - 1, "all-reduce": 2 * (n - 1) / n, "collective-permute": 1}.get(kind, (n - 1) / n)


def shape_bytes(shape: str) -> int:
    """Bytes of an array, or of all arrays of a tuple."""
    return sum(math.prod(_numbers(dims)) * item_bytes(dtype) for dtype, dims in _ARRAY.findall(shape))


def item_bytes(dtype: str) -> float:
    """Bytes of one element of an HLO type, such as bf16 or s4."""
    return _BYTES.get(dtype) or int(re.search(r"\d+", dtype)[0]) / 8


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]


def _is_integer(shape: str) -> bool:
    return _ARRAY.search(shape)[1].startswith(("s", "u", "pred"))


def _dims(shape: str) -> list[int]:
    return _numbers(_ARRAY.search(shape)[2])


def _parse(line: str) -> Instruction:
    name, _, right = line.strip().removeprefix("ROOT ").partition(" = ")
    shape, right = _balanced(right) if right.startswith("(") else right.split(" ", 1)
    opcode, _, _ = right.strip().partition("(")
    arguments, rest = _balanced(right.strip()[len(opcode) :])
    return Instruction(name.lstrip("%"), shape, opcode, tuple(_NAME.findall(arguments)), rest, arguments[1:-1])


def _balanced(text: str) -> tuple[str, str]:
    """(the parenthesis that the text begins with, what comes after it)."""
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return text[: i + 1], text[i + 1 :]
    raise ValueError(f"no closing parenthesis: {text[:80]}")


def _branches(instruction: Instruction) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.rest)
    if listed:
        return _NAME.findall(listed[1])
    return [instruction.attribute("true_computation"), instruction.attribute("false_computation")]


def _groups(rest: str) -> np.ndarray:
    """The replica groups of a collective, (groups, devices of a group), in any of XLA's spellings: {{0,1},{2,3}},
    [2,2]<=[4], [2,2]<=[2,2]T(1,0), mesh['a'=2,'b'=2] {'a'}, and the pairs of a permute."""
    pairs = re.search(r"source_target_pairs=\{(\{.*?\})\}", rest)
    listed = pairs or re.search(r"replica_groups=\{(\{.*?\})\}", rest)
    if listed:
        return np.array([_numbers(group) for group in re.findall(r"\{([\d,]*)\}", listed[1])])
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest)
    if iota:
        shape, dims, order = (_numbers(g or "") for g in iota.groups())
        ids = np.arange(math.prod(dims)).reshape(dims)
        return (ids.transpose(order) if order else ids).reshape(shape)
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\](?:,? ?device_ids=\(?\[?([^\]]*)\]?\)?)? ?\{([^}]*)\}", rest)
    if mesh:
        sizes = {axis: int(size) for axis, size in re.findall(r"'?(\w+)'?=(\d+)", mesh[1])}
        chosen = re.findall(r"'?([A-Za-z_]\w*)'?", mesh[3])
        ids = np.arange(math.prod(sizes.values())).reshape(list(sizes.values()))
        last = [list(sizes).index(axis) for axis in chosen]
        ids = ids.transpose([i for i in range(len(sizes)) if i not in last] + last)
        return ids.reshape(-1, math.prod(sizes[axis] for axis in chosen))
    raise ValueError(f"replica groups in an unknown spelling: {rest[:200]}")


def _dot(instruction: Instruction, left: list[int], right: list[int]) -> float:
    contracted = _numbers(re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)[1])
    return 2.0 * math.prod(_dims(instruction.shape)) * math.prod(left[i] for i in contracted)


def _convolution(instruction: Instruction, left: list[int], right: list[int]) -> float:
    """FLOPs of a product that the TPU compiler writes as a convolution. Batch dimensions become spatial ones, and most
    of their positions fall into the padding: these are not multiplied and do not count."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.rest)
    left_labels, right_labels, out_labels = labels.groups()
    out = _dims(instruction.shape)
    window = re.search(r"window=\{([^}]*)\}", instruction.rest)
    fields = dict(field.split("=") for field in window[1].split()) if window else {}
    spatial = sorted(c for c in out_labels if c.isdigit())

    def values(name: str, default: str) -> list[str]:
        return fields[name].split("x") if name in fields else [default] * len(spatial)

    positions = 1
    for label, size, stride, pad, dilate, kernel_dilate in zip(
        spatial, values("size", "1"), values("stride", "1"), values("pad", "0_0"), values("lhs_dilate", "1"),
        values("rhs_dilate", "1"), strict=True,
    ):  # fmt: skip
        at = np.arange(out[out_labels.index(label)])[:, None] * int(stride) - int(pad.split("_")[0])
        at = at + np.arange(int(size))[None, :] * int(kernel_dilate)
        last = (left[left_labels.index(label)] - 1) * int(dilate)
        positions *= int(((at >= 0) & (at <= last) & (at % int(dilate) == 0)).sum())
    features = right[right_labels.index("i")] * out[out_labels.index("f")]
    return 2.0 * positions * features * out[out_labels.index("b")]
