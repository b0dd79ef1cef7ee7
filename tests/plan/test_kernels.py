"""What an attention kernel multiplies and reads, by its blocks; in a program's text and by hand."""

import pytest

from moe_jax.plan.hlo import Program
from moe_jax.plan.hlo_traffic import traffic
from moe_jax.plan.kernels import attention_kernel

B, H, S, Dh = 2, 3, 1024, 64
QKV = [(1, 4, 2), (1, 4, 2), *[(B, H, S, Dh)] * 3]  # behind the mask's blocks
DOCUMENTS = [(B, S, 128), (B, 8, S)]
SIZES = (
    r'{kernel_metadata={"xprof_metadata":"{\"block_q\": 256, \"block_kv\": 512, \"block_q_dkv\": 256, '
    r'\"block_kv_dkv\": 512, \"block_q_dq\": 256, \"block_kv_dq\": 512}"}}'
)
# Queries 0–256 and 256–512 meet the first half of the keys, the others both halves: 6 of 8 pairs of blocks.
ONE_PRODUCT = 2 * 256 * 512 * 6 * Dh * B * H


def kernel(name, operands, results=5):
    return attention_kernel(f"jit(step)/splash_mha_{name}/pallas_call", SIZES, 2, operands, results)


def test_forward():
    found = kernel("fwd_residuals", [*QKV, (S, 128)])
    assert found.flops == 2 * ONE_PRODUCT
    assert found.reads == (1, 1, 1, 3, 3, B * H)  # all or half of the keys for each of 4 blocks of queries
    assert kernel("fwd_segmented_no_residuals", [*QKV, *DOCUMENTS, (S, 128)]).reads[5:] == (H, 3 * H, B * H)


@pytest.mark.parametrize(("results", "products"), [(4, 4), (5, 5), (6, 5)])
def test_backward(results, products):
    """With the gradient of queries it has one product and one result more, or two with that one's scratch."""
    statistics = [(B, H, 8, S), (B, H, S, Dh), (B, H, 8, S)]
    found = kernel("dkv_no_residuals", [*QKV, *statistics, (8, S)], results)
    assert found.flops == products * ONE_PRODUCT
    assert found.reads == (1, 1, 1.5, 1, 1, 1.5, 1.5, 1.5, 1.5 * B * H)


def test_the_gradient_of_queries_alone():
    found = kernel("dq_no_residuals", [*QKV, (B, H, 8, S), (B, H, S, Dh), (B, H, 8, S), (S, 128)])
    assert found.flops == 3 * ONE_PRODUCT and found.reads[2:] == (1, 3, 3, 1, 1, 1, B * H)


def test_one_sequence_has_no_axis_for_the_batch():
    one = [(1, 4, 2), (1, 4, 2), *[(H, S, Dh)] * 3, (S, 128), (8, S), (S, 128)]
    found = kernel("fwd_segmented_no_residuals", one)
    assert found.flops == 2 * ONE_PRODUCT / B
    assert found.reads == (1, 1, 1, 3, 3, H, 3 * H, H)


def test_heads_that_share_keys_read_them_again():
    """Each of two heads reads all its keys; going over a block of keys, they are read once."""
    shared = [(1, 4, 2), (1, 4, 2), (B, H, S, Dh), *[(B, 1, S, Dh)] * 2]
    found = kernel("fwd_residuals", [*shared, (S, 128)])
    assert found.flops == 2 * ONE_PRODUCT and found.reads == (1, 1, 1, 3 * H, 3 * H, B * H)
    statistics = [(B, H, 8, S), (B, H, S, Dh), (B, H, 8, S)]
    assert kernel("dkv_no_residuals", [*shared, *statistics, (8, S)]).reads[2:5] == (1.5, 1, 1)


def test_other_kernels_are_none():
    assert attention_kernel("jit(step)/gmm/pallas_call", "", 2, QKV, 1) is None


def test_a_program_moves_what_its_kernel_reads():
    """In the spelling of libtpu 0.0.52, which breaks the lines of what a kernel states."""
    array = "bf16[2,3,1024,64]{3,2,1,0}"
    metadata = SIZES.replace('{"xprof', '{\n"xprof').replace('"}}', '"\n}}')
    text = f"""HloModule step

ENTRY %main (q: {array}) -> {array} {{
  %mask = s8[1,4,2]{{2,1,0}} parameter(0)
  %q = {array} parameter(1)
  %positions = s32[1024,128]{{1,0:S(1)}} parameter(2)
  ROOT %splash = {array} custom-call(%mask, %mask, %q, %q, %q, %positions), custom_call_target="tpu_custom_call", \
frontend_attributes={metadata}, metadata={{op_name="jit(step)/splash_mha_fwd_no_residuals/pallas_call"}}
}}
"""
    program = Program(text)
    assert [p.flops for p in program.products] == [2 * ONE_PRODUCT]
    q = 2 * B * H * S * Dh
    assert traffic(program) == 2 * 8 + (1 + 3 + 3) * q + q  # positions are on the chip
