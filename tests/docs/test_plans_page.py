"""docs/plans.md does what it says: its commands run, and print the tables that stand there."""

import re

import pytest

from tests.conftest import ROOT
from tests.docs.test_howto import Page

TEXT = (ROOT / "docs" / "plans.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_plans(tmp_path):
    page = Page("../plans", tmp_path)
    _, _, _, clock, _, _, following = page.run()
    assert all(name in {path.name for path in tmp_path.iterdir()} for name in ("optimum.1.csv", "cells.prediction.csv"))
    for row in re.findall(r"^\| [\d,]+ \| (wall clock|FLOPs) \| ([\d.]+) \|", TEXT, re.MULTILINE):
        assert re.search(rf"{row[0]} +{row[1]}\b", clock), row
    picks = re.findall(r"^ +\d  (small|long|as before|large)\b.* (\S+%) +\S+ +\S+%$", TEXT, re.MULTILINE)
    assert len(picks) == 4
    for (name, narrowed), line in zip(picks, following.splitlines()[3:7], strict=True):
        assert name in line and narrowed in line, line
