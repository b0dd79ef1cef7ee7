"""Traffic of main memory: equal to XLA's own count where that is right, and loops counted where it is not."""

import jax
import jax.numpy as jnp
import pytest

from moe_jax.plan.hlo import Program
from moe_jax.plan.hlo_traffic import hbm_bytes, traffic


def compiled(f, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(f).lower(*arguments).compile()


@pytest.mark.parametrize(
    ("f", "shapes"),
    [
        (lambda x, y: x @ y, [(64, 32), (32, 128)]),
        (lambda x: jnp.tanh(x) * 2 + 1, [(64, 64)]),
        (lambda x: x.sum(0), [(64, 64)]),
        (lambda x: jnp.sort(x), [(256,)]),
    ],
)
def test_straight_programs_move_what_xla_counts(f, shapes):
    program = compiled(f, *shapes)
    assert traffic(Program(program.as_text())) == pytest.approx(program.cost_analysis()["bytes accessed"], rel=0.05)


def test_a_gather_moves_the_rows_that_it_takes():
    program = compiled(lambda x, i: jnp.take(x, i.astype(jnp.int32), 0), (4096, 8), (16,))
    rows, indices = 4 * 16 * 8, 4 * 16
    assert traffic(Program(program.as_text())) == 2 * rows + indices  # XLA counts the whole table


def test_a_scan_moves_its_slices_as_often_as_it_goes_round():
    def f(w_LxDxD, x_BxD):
        return jax.lax.scan(lambda x_BxD, w_DxD: (jnp.tanh(x_BxD @ w_DxD), None), x_BxD, w_LxDxD)[0]

    D, B = 128, 8
    least = 4 * D * D  # each round reads its own matrix, and not the whole stack
    few, many = (traffic(Program(compiled(f, (L, D, D), (B, D)).as_text())) for L in (10, 40))
    assert 30 * least < many - few < 30 * 4 * least


def test_what_lies_on_the_chip_is_not_moved():
    assert hbm_bytes("f32[8,128]{1,0:T(8,128)}") == 4096
    assert hbm_bytes("f32[8,128]{1,0:T(8,128)S(1)}") == 0
    assert hbm_bytes("(bf16[8,128]{1,0:T(8,128)(2,1)}, f32[4]{0:T(128)S(1)}, u32[]{:S(2)}, token[])") == 2048


def test_prefetches_count_the_slice_and_fusions_what_they_take_of_an_operand():
    text = """
HloModule m

%fused (p0: f32[64,128], p1: s32[]) -> f32[1,128] {
  %p0 = f32[64,128]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %c = s32[] constant(0)
  %d = f32[1,128]{1,0} dynamic-slice(%p0, %p1, %c), dynamic_slice_sizes={1,128}
  ROOT %n = f32[1,128]{1,0} negate(%d)
}

%putting (p0: f32[64,128], p1: f32[1,128], p2: s32[]) -> f32[64,128] {
  %p0 = f32[64,128]{1,0} parameter(0)
  %p1 = f32[1,128]{1,0} parameter(1)
  %p2 = s32[] parameter(2)
  %c = s32[] constant(0)
  ROOT %u = f32[64,128]{1,0} dynamic-update-slice(%p0, %p1, %p2, %c)
}

ENTRY %main (a: f32[64,128], i: s32[]) -> f32[64,128] {
  %a = f32[64,128]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %s = ((f32[64,128]{1,0}), f32[16,128]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%a), slice={[0:16], [0:128]}
  %t = f32[16,128]{1,0:S(1)} slice-done(%s)
  %taken = f32[1,128]{1,0} fusion(%a, %i), kind=kLoop, calls=%fused
  ROOT %put = f32[64,128]{1,0} fusion(%a, %taken, %i), kind=kLoop, calls=%putting
}
"""
    prefetched, row, index = 4 * 16 * 128, 4 * 128, 4
    assert traffic(Program(text)) == prefetched + (2 * row + index) + (2 * row + index)


def test_a_fusion_within_a_fusion_reads_the_slice_that_it_takes():
    text = """HloModule step

%inner (all: f32[24,64], i: s32[]) -> f32[1,64] {
  %all.1 = f32[24,64]{1,0} parameter(0)
  %i.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %taken = f32[1,64]{1,0} dynamic-slice(%all.1, %i.1, %zero), dynamic_slice_sizes={1,64}
}

%outer (all: f32[24,64], i: s32[]) -> f32[1,64] {
  %all.2 = f32[24,64]{1,0} parameter(0)
  %i.2 = s32[] parameter(1)
  %fusion.2 = f32[1,64]{1,0} fusion(%all.2, %i.2), kind=kLoop, calls=%inner
  ROOT %negated = f32[1,64]{1,0} negate(%fusion.2)
}

ENTRY %main (all: f32[24,64], i: s32[]) -> f32[1,64] {
  %all = f32[24,64]{1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %fusion = f32[1,64]{1,0} fusion(%all, %i), kind=kLoop, calls=%outer
}
"""
    assert traffic(Program(text)) == pytest.approx(2 * 4 * 64, abs=8)
