"""Runs on this machine are started again by the rule of every launcher."""

import io
import sys

import pytest

from moe_jax.progress import Display
from moe_jax.sweep.launchers import local_restarts, restarts
from tests import synthetic_sweep as synthetic
from tests.hand_edits import sealed_text


@pytest.fixture
def train(tmp_path, monkeypatch):
    """train(*ends, limit) -> (state, starts): a fake Python ends so, one after the other; `done` writes the result."""
    work, (run,) = synthetic.make(tmp_path / "w", [{}])
    folder = work.run_dir(run.name)
    result = tmp_path / "result.json"
    result.write_text(sealed_text(synthetic.result_of(run).to_json()))

    def go(*ends, limit):
        (tmp_path / "ends").write_text("".join(f"{end}\n" for end in ends))
        python = tmp_path / "python"
        python.write_text(
            f"""#!/usr/bin/env bash
cd '{tmp_path}'; echo x >> starts
end=$(sed -n "$(wc -l < starts)p" ends)
case $end in done) cp result.json '{folder.result_path}'; exit 0 ;; killed) kill -9 $$ ;; esac
exit "$end"
"""
        )
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))
        said = io.StringIO()
        (state,) = local_restarts.train_with_restarts(work, [run], 1, limit, Display(said))
        return state.state, len((tmp_path / "starts").read_text().split())

    return go


@pytest.mark.parametrize(
    ("ends", "limit", "state", "starts"),
    [
        (["killed", "75", "1", "done"], 5, "done", 4),
        (["1", "1", "1", "1"], 2, "failed", 3),
        (["killed", "2", "done"], 5, "failed", 2),
        (["75", "75"], 1, "queued", 2),
        (["done"], 0, "done", 1),
    ],
)
def test_what_is_started_again(train, ends, limit, state, starts):
    assert train(*ends, limit=limit) == (state, starts)


def test_the_rule():
    """Signals and crashes, as Python and as a shell say them; not what a second start cannot change."""
    assert all(map(restarts.is_restarted_after, (1, 75, -9, -6, 134, 137, 143, 42)))
    assert not any(map(restarts.is_restarted_after, (0, 2, 3)))
