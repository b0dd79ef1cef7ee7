"""The kernels are plain attention: outputs, gradients, masks of documents, on one device and on several; and where a
device has none, the rule is named. The kernel for TPU runs interpreted here, in the code that TPUs compile."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from moe_jax.config.schema import MeshConfig
from moe_jax.errors import UserError
from moe_jax.model import flash_attention, sharding
from moe_jax.training.program import Pack
from moe_jax.training.step import Trainer
from tests.model.test_causal_attention import GROUP, both, given, plain
from tests.models import END_OF_DOCUMENT, VOCABULARY, config, distance, loss_and_gradients, trainer, windows

TPU = types.SimpleNamespace(platform="tpu")
H100 = types.SimpleNamespace(platform="gpu", compute_capability="9.0")
A100 = types.SimpleNamespace(platform="gpu", compute_capability="8.0")


def mesh(data=1, expert=1):
    return sharding.make_mesh(MeshConfig(1, data, expert), jax.devices()[: data * expert])


def kernel(mesh):
    return lambda q, k, v, document_BxS, precision: flash_attention.attend(mesh, q, k, v, document_BxS)


@pytest.mark.parametrize(("S", "Dh"), [(128, 8), (384, 64)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("group", [1, GROUP])
def test_the_kernel_is_plain_attention(S, Dh, masked, group):
    qkv, d_y, document_BxS = given(S, jnp.float32, Dh, group)
    document_BxS = document_BxS if masked else None
    wanted = both(plain, qkv, d_y, document_BxS)
    for a, b in zip(both(kernel(mesh()), qkv, d_y, document_BxS), wanted, strict=True):
        assert a.dtype == jnp.float32 and distance(np.asarray(a), np.asarray(b)) < 1e-5


def test_in_bfloat16_softmax_is_in_float32():
    """As close to float32 as values rounded to bfloat16 can be."""
    qkv, d_y, document_BxS = given(256, jnp.bfloat16)
    got = both(kernel(mesh()), qkv, d_y, document_BxS)
    wide = tuple(a.astype(jnp.float32) for a in qkv)
    for a, b in zip(got, both(plain, wide, d_y.astype(jnp.float32), document_BxS), strict=True):
        assert a.dtype == jnp.bfloat16 and distance(np.asarray(a), np.asarray(b)) < 0.02


# One layer of the whole model whose attention is the kernel: heads of 8, a block of 128 positions.
MODEL = ("model.n_layers=1", "data.sequence_length=128", "data.mask_documents=True", "train.batch_sequences=8")


@pytest.mark.parametrize("devices", [{}, {"replica": 2, "data": 2, "expert": 2}], ids=str)
def test_the_model_is_the_same_on_every_mesh_and_by_chunks(devices, monkeypatch):
    """Loss and gradients of all parameters, documents masked, against chunks of queries on one device."""
    c = config(*MODEL)
    loss, gradients = loss_and_gradients(trainer(c), windows(c))
    monkeypatch.setattr(flash_attention, "choose", lambda *args: ("flash", ""))
    other, others = loss_and_gradients(trainer(c, **devices), windows(c))
    assert other == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        assert distance(others[name], gradient) < 1e-5, name


def model(*overrides):
    return config("model.compute_dtype=bfloat16", *overrides).model


@pytest.mark.parametrize(
    ("device", "overrides", "positions", "documents", "rule"),
    [
        (TPU, (), 4096, True, None),
        (TPU, ("model.d_model=512",), 4096, True, None),  # heads of 256
        (H100, ("model.d_model=512",), 100, False, None),
        (A100, (), 4096, False, None),
        (jax.devices()[0], (), 4096, False, "a cpu device has no kernel"),
        (types.SimpleNamespace(platform="gpu", compute_capability="7.5"), (), 4096, False, "compute capability 8.0"),
        (types.SimpleNamespace(platform="gpu", compute_capability="gfx942"), (), 4096, False, "a gpu device has no"),
        (TPU, ("model.attention_float32=True",), 4096, False, "model.attention_float32 asks for float32"),
        (H100, ("model.compute_dtype=float32",), 4096, False, "not model.compute_dtype = float32"),
        (TPU, ("model.d_model=24",), 4096, False, "multiple of 8 up to 256, not model.head_dim = 12"),
        (A100, ("model.d_model=512",), 4096, False, "up to 128"),
        (TPU, (), 4000, False, "a multiple of 128 positions, not data.sequence_length = 4000"),
        (H100, (), 4096, True, "data.mask_documents"),
    ],
)
def test_flash_needs_a_kernel_and_auto_takes_it_where_there_is_one(device, overrides, positions, documents, rule):
    given = device, positions, documents
    by, why = flash_attention.choose(model(*overrides), *given)
    assert by == ("xla" if rule else "flash") and (rule or "has a kernel") in why
    assert flash_attention.choose(model(*overrides, "model.attention=xla"), *given)[0] == "xla"
    flash = model(*overrides, "model.attention=flash")
    if rule is None:
        assert flash_attention.choose(flash, *given)[0] == "flash"
    else:
        with pytest.raises(UserError, match=rf"config.model.attention = 'flash': .*{rule}.*; use auto or xla"):
            flash_attention.choose(flash, *given)


def test_gpus_are_given_cudnn(monkeypatch):
    """Lowered here for a GPU, forward and backward; it has run on none."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    q, shared = (jax.ShapeDtypeStruct((2, 256, heads, 64), jnp.bfloat16) for heads in (6, 3))
    unpartitioned = jax.sharding.Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1, 1), sharding.AXES)

    def loss(*qkv):
        local = jax.shard_map(
            lambda *qkv: flash_attention._cudnn(*qkv, None), mesh=unpartitioned,
            in_specs=jax.P(sharding.AXES), out_specs=jax.P(sharding.AXES), check_vma=False,
        )  # fmt: skip
        return local(*qkv).astype(jnp.float32).sum()

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    text = gradients.trace(q, shared, shared).lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaSoftmax" in text and "__cudnn$fmhaSoftmaxBackward" in text
    assert "256x256" not in text  # no scores


@pytest.mark.slow
def test_packed_runs_are_the_same_by_the_kernel(monkeypatch):
    """Two runs in one program, each on two devices."""
    c = config(*MODEL, "mesh.data=2", "mesh.expert=1", "sweep.pack=2", "checkpoint.keep=2")

    def losses():
        t = Trainer(c, VOCABULARY, sharding.Layout(sharding.make_packed_mesh(c, jax.devices()[:4], 2)), END_OF_DOCUMENT)
        pack = Pack(t, 2)
        batch = jax.device_put(np.stack([windows(c, seed)[None] for seed in (0, 1)]), pack.batch_sharding)
        _, metrics = pack.step(pack.join([t.init(0), t.init(1)]), batch, pack.schedule([c, c]))
        return np.asarray(metrics["loss"])

    by_chunks = losses()
    monkeypatch.setattr(flash_attention, "choose", lambda *args: ("flash", ""))
    np.testing.assert_allclose(losses(), by_chunks, rtol=1e-5)
