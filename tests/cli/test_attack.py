"""Damaged files of every kind: never a traceback, and never another number in silence from a sealed one."""

from pathlib import Path

import pytest

from tests import attack, attacked_sweep

MOST = 10  # of a row; all of them, and the pages of `report`, take experiments/benchmarks/attack.py
CASES = [(verb, kind) for verb, kinds in attack.READS.items() for kind in kinds if verb != "report"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return attacked_sweep.make(tmp_path_factory.mktemp("attack"))


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "kind"), CASES)
def test_no_damage_gives_a_traceback_or_another_number_in_silence(sound, tmp_path, verb, kind):
    found = attack.attack_kind(sound, tmp_path, verb, kind, MOST)
    assert not {c: found[c] for c in attack.FAULTS[kind in attacked_sweep.SEALED] if found[c]}
    assert sum(map(len, found.values())) > 1
