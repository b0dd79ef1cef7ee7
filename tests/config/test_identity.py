"""Config hash, trunk, pack and compiled step follow from what each field says that it enters, and from nothing else."""

import dataclasses
import json
import types
import typing

import pytest

from moe_jax.config import config_file, fields, grid, identity, schema
from moe_jax.config.enters import HOW, RESULT, TRUNK, entered_by, enters
from moe_jax.config.identity import StepShape
from moe_jax.errors import UserError
from moe_jax.sweep import jobs, manifest
from moe_jax.sweep.manifest import Manifest, StoreIdentity, plan_runs

BASE = config_file.load(["--config=configs/common.py"]).base.to_dict()


def config(*cell):
    return grid.config_of(BASE, dict(cell))


def groups(cls=schema.Config):
    """Every dataclass of a config, and the fields of each."""
    yield cls
    for hint in typing.get_type_hints(cls).values():
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        for option in options:
            if dataclasses.is_dataclass(option):
                yield from groups(option)


@pytest.mark.parametrize("group", list(groups()))
def test_every_field_says_what_it_enters(group):
    hints = typing.get_type_hints(group)
    for field in dataclasses.fields(group):
        if not dataclasses.is_dataclass(hints[field.name]):  # a group enters what its fields enter
            entered = entered_by(field)
            assert RESULT in entered or TRUNK not in entered, field.name  # a trunk is a part of what gives the result


def test_a_field_that_does_not_say_it_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Careless(schema.SweepConfig):
        colour: str

    @dataclasses.dataclass(frozen=True)
    class Careful(schema.SweepConfig):
        colour: str = enters(HOW)

    whole = config()
    before = identity.config_hash(whole, "a", 259)
    assert identity.config_hash(dataclasses.replace(whole, sweep=Careful(1, "red")), "a", 259) == before
    with pytest.raises(TypeError, match="config field colour does not say what it enters"):
        identity.config_hash(dataclasses.replace(whole, sweep=Careless(1, "red")), "a", 259)


def test_the_hash_covers_what_defines_the_result():
    def hashed(*cell, sha="a" * 64, V=259):
        return identity.config_hash(config(*cell), sha, V)

    same = hashed()
    for field, value in [
        ("mesh.data", 8),
        ("train.microbatches", 4),
        ("checkpoint.every_steps", 3),
        ("tensorboard", True),
        ("model.remat", "block"),
        ("model.attention", "xla"),
        ("eval.stores", ("code=stores/code",)),
        ("train.log_layers", True),
        ("train.log_every_steps", 7),
        ("data.store", "elsewhere"),
        ("moe.n_experts", 8),
    ]:
        assert hashed((field, value)) == same, field
    for field, value in [
        ("model.d_model", 32),
        ("moe", None),
        ("train.batch_sequences", 64),
        ("train.tokens", 1),
        ("optim.learning_rate", 1e-3),
        ("eval.sequences", 8),
        ("eval.dispatch", "slots"),
        ("model.compute_dtype", "bfloat16"),
        ("seed", 1),
        ("moe.capacity_factor", 2),
        ("moe.bias_update_rate", 1e-3),
        ("train.loss_average_steps", 7),
        ("data.mask_documents", True),
    ]:
        assert hashed((field, value)) != same, field
    assert hashed(sha="b" * 64) != same
    assert hashed(V=300) != same


def test_a_vocabulary_is_the_same_from_the_store_or_the_config():
    given = ("model.vocab_size", 259)
    assert identity.config_hash(config(given), "a", 259) == identity.config_hash(config(), "a", 259)
    assert StepShape(config(given), 259).key == StepShape(config(), 259).key


def test_a_trunk_is_shared_by_runs_that_differ_in_tokens_or_in_how_they_are_done():
    def hashed(*cell, sha="a"):
        return identity.trunk_hash(config(*cell), sha, 259)

    for cell in [("train.tokens", 1), ("mesh.data", 8), ("checkpoint.keep", 5), ("train.microbatches", 4)]:
        assert hashed(cell) == hashed(), cell
    for cell in [("seed", 1), ("optim.learning_rate", 1e-3), ("optim.eps", 1e-6), ("eval.every_steps", 7)]:
        assert hashed(cell) != hashed(), cell
    assert hashed(sha="b") != hashed()


def test_a_pack_is_of_runs_that_differ_in_seed_and_rate_alone():
    leaves = [name for name in fields.field_names() if not isinstance(_value(fields.to_dict(config()), name), dict)]
    others = {int: 3, float: 0.25, bool: True}
    free = []
    for name in leaves:
        value = _value(fields.to_dict(config()), name)
        try:
            changed = config((name, others.get(type(value), "float64")))
        except UserError:  # not alone
            continue
        if changed != config() and identity.pack_key(changed, 259) == identity.pack_key(config(), 259):
            free.append(name)
    assert sorted(free) == ["optim.learning_rate", "seed"]


def _value(values, name):
    for part in name.split("."):
        values = values[part]
    return values


@pytest.fixture
def router(tmp_path, monkeypatch):
    """The file of a user's router, `routers_of_mine:hashed`."""
    source = tmp_path / "routers_of_mine.py"
    source.write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return source


CELL = ("moe.router", "routers_of_mine:hashed")


def test_a_users_router_is_known_by_its_name_and_its_source(router):
    def all_of(*cell):
        c = config(*cell)
        shape = StepShape(c, 259)
        return identity.config_hash(c, "a", 259), identity.trunk_hash(c, "a", 259), shape.key, shape.id

    first = all_of(CELL)
    assert all_of(CELL) == first
    other = all_of(("moe.router", "routers_of_mine:other"))
    router.write_text("# changed\n")
    changed = all_of(CELL)
    assert all(len({*values}) == 3 for values in zip(first, other, changed, strict=True))
    router.unlink()
    with pytest.raises(UserError, match=r"router = 'routers_of_mine:hashed': Python finds no file"):
        all_of(CELL)


def test_a_sweep_with_a_router_that_changed_is_read_but_not_trained(router):
    store = StoreIdentity("stores/x", "a" * 64, 259)
    made = Manifest("s000000", "--config=x.py", store, plan_runs(grid.expand(BASE, [dict([CELL])]), store))
    manifest.check_routers(made)
    written = json.loads(json.dumps(manifest.to_json(made)))
    router.write_text("# changed\n")
    read = manifest.from_json(written)
    assert read == made and len(jobs.jobs_of(read.runs)) == 1
    with pytest.raises(UserError, match=r"the source of its router routers_of_mine:hashed has changed since the sweep"):
        manifest.check_routers(read)
    again = dataclasses.replace(made, runs=plan_runs(grid.expand(BASE, [dict([CELL])]), store))
    with pytest.raises(UserError, match=r"has another config \(the source of its router, or the vocabulary\)"):
        manifest.extended(read, again, True, "w")
