"""law.json's JSON Schema describes what fit writes, and the checklist says what a reader must know."""

import importlib.resources
import json
import re
import types
import typing
from collections.abc import Mapping

import numpy as np
import pytest

from moe_jax import laws
from moe_jax.laws import law as law_module
from tests.conftest import ROOT
from tests.planted_laws import planted_runs

SCHEMA = json.loads(importlib.resources.files("moe_jax.laws").joinpath("law.schema.json").read_text(encoding="utf-8"))
TYPES = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "null": type(None),
}  # fmt: skip


def faults(value, schema, where="law"):
    """The sentences of a small validator: type, properties, required, additionalProperties, items, prefixItems, bounds,
    pattern."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and (isinstance(value, bool) or not any(isinstance(value, TYPES[k]) for k in kinds)):
        return [f"{where} is {value!r:.40}, must be {kinds}"]
    found = []
    if isinstance(value, dict):
        found += [f"{where} has no {k}" for k in schema.get("required", []) if k not in value]
        for key, item in value.items():
            inner = schema.get("properties", {}).get(key, schema.get("additionalProperties", True))
            found += faults(item, inner, f"{where}.{key}") if isinstance(inner, dict) else []
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", np.inf):
            found.append(f"{where} has {len(value)} items")
        inner = [*schema.get("prefixItems", []), *[schema.get("items", {})] * len(value)]
        found += [f for i, item in enumerate(value) for f in faults(item, inner[i], f"{where}[{i}]")]
    if isinstance(value, int | float):
        low, high = schema.get("exclusiveMinimum", -np.inf), schema.get("exclusiveMaximum", np.inf)
        if not low < value < high or value < schema.get("minimum", -np.inf):
            found.append(f"{where} is {value}, out of its range")
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        found.append(f"{where} is {value!r:.40}, must be like {schema['pattern']}")
    return found


def declared(hint):
    """The JSON type of a field's declared type."""
    if isinstance(hint, types.UnionType):
        return {k for option in typing.get_args(hint) for k in declared(option)}
    origin = typing.get_origin(hint) or hint
    names = {str: "string", int: "integer", float: "number", bool: "boolean", tuple: "array", types.NoneType: "null"}
    return {names.get(origin, "object")}


@pytest.fixture(scope="module")
def table():
    made, _ = planted_runs(laws.get("chinchilla"), 30, 0.003)
    rate = np.where(np.arange(30) % 2, 1e-3, 2e-3)
    return made | {"learning_rate": rate, "optimizer": ["adamw"] * 30, "schedule": ["wsd", "cosine", "wsd"] * 10}


@pytest.mark.parametrize(
    "options",
    [
        {"resampling": laws.Resampling(samples=4)},
        {"resampling": laws.Resampling(samples=0), "fix": {"alpha": 0.34}, "objective": laws.Objective(huber=np.inf)},
        {"resampling": laws.Resampling(samples=3), "split": laws.Split(holdout="lowest:0.2", drop="highest:2")},
    ],
    ids=["bootstrap", "fixed", "held out"],
)
def test_every_law_that_a_fit_writes_is_as_the_schema_says(table, options, tmp_path):
    fitted = laws.fit(table, "chinchilla", start=2, **options)
    fitted.law.save(tmp_path / "law.json", request="0" * 64)
    stored = json.loads((tmp_path / "law.json").read_text())
    assert not faults(stored, SCHEMA)
    undescribed = stored.keys() - SCHEMA["properties"].keys()
    assert not undescribed, f"describe {undescribed} in moe_jax/laws/law.schema.json and docs/law_json.md"
    again = laws.load(tmp_path / "law.json")
    assert again.checklist == fitted.law.checklist and list(again.checklist) == list(fitted.law.checklist)


def test_the_validator_and_the_schema_refuse_what_is_wrong(table):
    fitted = laws.fit(table, "chinchilla", start=2, resampling=laws.Resampling(samples=3))
    sound = fitted.law.to_json() | {"fields_sha256": "0" * 64}
    assert not faults(sound, SCHEMA)
    wrong = {
        "level": 1.5, "coefficients": {"A": "406"}, "intervals": {"A": [1]}, "notes": "none", "n_fit": -1,
        "starts": 1.5, "data_sha256": "abc", "columns": {"N": 3}, "cost": 6, "law": None,
    }  # fmt: skip
    for key, value in wrong.items():
        assert faults(sound | {key: value}, SCHEMA), key
        assert faults({k: v for k, v in sound.items() if k != key}, SCHEMA), f"{key} may be missing"


def test_the_schema_has_the_types_of_the_fields():
    for key, (group, name) in law_module._KEYS.items():
        hint = law_module._HINTS[group][name]
        said = SCHEMA["properties"][key]["type"]
        assert declared(hint) == ({said} if isinstance(said, str) else set(said)), key
        inner = typing.get_args(hint)
        if typing.get_origin(hint) in (dict, Mapping) and inner[1] is not object:
            assert SCHEMA["properties"][key]["additionalProperties"]["type"] in declared(inner[1]), key


def test_every_key_stands_in_the_document():
    page = (ROOT / "docs" / "law_json.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \| [a-z{]", page, re.M)) >= SCHEMA["properties"].keys()
    for key, property_ in SCHEMA["properties"].items():
        assert f"| `{key}` |" in page and property_["description"] in page, key


def test_the_checklist_tells_what_was_done(table):
    split = laws.Split(holdout="lowest:0.2")
    law = laws.fit(
        table, "chinchilla", start=2, split=split, fix={"alpha": 0.34}, resampling=laws.Resampling(samples=3)
    ).law  # fmt: skip
    said = law.checklist
    assert said["N"] == "n_total: all parameters, embeddings too" and said["C"].startswith("flops_6nd: 6 · ")
    assert "vary: learning_rate (2 values, 0.001 to 0.002), schedule (cosine, wsd)" in said["hyper-parameters"]
    assert "constant: optimizer adamw; not in the table: batch_tokens" in said["hyper-parameters"]
    assert said["fixed"] == "alpha = 0.34" and said["held out"].startswith("6 runs, by 'lowest:0.2' (RMSE ")
    assert said["objective"].startswith("Huber (δ = 0.001) of residuals of ln loss, no penalty")
    assert said["checkpoints"].startswith("the table does not tell")
    assert said["starts"] == f"{law.method.starts_at_best} of {law.method.starts} starts reached the best optimum"
    trunks = table | {"trunk": ["t1"] * 12 + [None] * 18, "own_tokens": [1e9] * 30}
    branches = laws.fit(trunks, "chinchilla", start=2, resampling=laws.Resampling(samples=0)).law.checklist
    assert branches["checkpoints"] == "the last of each run; 12 of 30 runs branch off a trunk that they share"
    assert branches["held out"].startswith("no run") and branches["intervals"] == "none"
    assert said["intervals"] == "the central 80% of 3 bootstrap samples (residuals)"
    tuned = laws.fit(table, "chinchilla", start=2, best_of="learning_rate", resampling=laws.Resampling(samples=0)).law
    assert "tuned: the best learning_rate of each cell" in tuned.checklist["hyper-parameters"]


def test_the_checklist_tells_what_weighs_the_runs_and_what_shares_noise(table):
    given = table | {"sd": [0.01, 0.02] * 15, "machine": [*"abcdef"] * 5}
    said = laws.fit(
        given, "chinchilla", start=2, sigma="sd", objective=laws.Objective(one_sided=0.5),
        resampling=laws.Resampling(samples=3, method="wild", cluster="machine"),
    ).law.checklist  # fmt: skip
    assert ", rows weighted by sigma=sd, rows that the law lies below by 0.5, by Lev" in said["objective"]
    assert said["intervals"].endswith("(wild, rows of one machine together)")


def test_the_checklist_of_a_law_of_rates():
    best = {C: C**-0.1 for C in (1e17, 1e18, 1e19, 1e20)}
    rates = [(C, lr * f, 2 + np.log(f) ** 2) for C, lr in best.items() for f in (0.5, 1, 2)]
    made = dict(zip(("train_flops", "learning_rate", "eval_loss"), zip(*rates, strict=True), strict=True))
    said = laws.fit(made, "flops_lr", start=2, resampling=laws.Resampling(samples=0)).law.checklist
    assert said["form"].endswith(": learning_rate = a * C^b") and said["runs"].startswith("best of 4 cells fitted")
    assert said["objective"].startswith("least squares of residuals of ln learning_rate")
    assert said["hyper-parameters"].startswith("tuned: the best learning_rate of each cell")
