"""Kept compiles: a record depends on all that the compiled step depends on; a damaged one is made again."""

import dataclasses

from moe_jax.config.identity import StepShape
from moe_jax.config.schema import MeshConfig
from moe_jax.plan import compiles
from moe_jax.plan.compiles import Compiles, Request
from moe_jax.plan.placement import Placement
from tests import models
from tests.fake_compiler import FakeCompiler

EXPERT_4 = MeshConfig(1, 1, 4)


def request(field: str = "seed=0", topology: str = "v5e:2x2", mesh: MeshConfig = EXPERT_4, parts: int = 1) -> Request:
    shape = StepShape(models.config("train.batch_sequences=32", field), 37)
    return Request(shape, topology, 1, Placement(mesh, parts))


def test_a_compile_is_kept_by_all_that_it_depends_on(tmp_path, monkeypatch):
    fake = FakeCompiler()
    steps = Compiles(tmp_path, fake)
    first = steps.get(request())
    assert steps.get(request("seed=1")) == first and len(fake.asked) == 1
    assert Compiles(tmp_path, fake).get(request()) == first and len(fake.asked) == 1
    others = [
        request("model.n_layers=3"), request(topology="v5p:2x2x1"), request(mesh=MeshConfig(1, 2, 2)),
        request(parts=2), dataclasses.replace(request(mesh=MeshConfig(2, 1, 4)), slices=2),
    ]  # fmt: skip
    assert len({r.digest for r in [request(), *others]}) == 1 + len(others)
    kept = request().digest
    with monkeypatch.context() as m:
        m.setattr(compiles, "_source_digest", lambda: "changed code")
        assert request().digest != kept
    with monkeypatch.context() as m:
        m.setattr(compiles, "_versions", lambda: {"jax": "0.99"})
        assert request().digest != kept


def test_a_damaged_record_is_made_again(tmp_path):
    fake = FakeCompiler()
    steps = Compiles(tmp_path, fake)
    steps.get(request())
    (record,) = tmp_path.iterdir()
    for content in ("", "{}", "[1]", '{"topology": 3}', record.read_text()[:-40]):
        record.write_text(content)
        assert steps.known(request()) is None
        assert steps.get(request()).fits
    assert len(fake.asked) == 6


def test_the_source_digest_knows_every_file_that_the_step_comes_from():
    root = compiles.Path(compiles.__file__).parents[1]
    found = {path.relative_to(root).as_posix() for path in compiles._sources(root)}
    model = {path.relative_to(root).as_posix() for path in (root / "model").rglob("*.py")}
    assert {"model/moe.py", "model/routers/token_choice.py"} <= model <= found
    assert {"training/step.py", "training/optimizer.py", "training/muon.py", "training/adafactor.py"} <= found
    assert {"plan/aot.py", "plan/hlo.py", "config/counts.py"} <= found


def test_every_pattern_of_the_sources_finds_a_file():
    root = compiles.Path(compiles.__file__).parents[1]
    assert all(list(root.glob(pattern)) for pattern in compiles._SOURCES)
