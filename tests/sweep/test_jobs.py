"""Jobs of a sweep: every run is given by one of them, a trunk stands before its branches, and nothing is trained
twice."""

import dataclasses

import pytest

from moe_jax.config import config_file, grid
from moe_jax.errors import UserError
from moe_jax.sweep import jobs
from moe_jax.sweep.manifest import Manifest, StoreIdentity, plan_runs
from moe_jax.sweep.workdir import Workdir
from tests.hand_edits import sealed_text

STORE = StoreIdentity("stores/x", "a" * 64, 259)
FLAGS = [
    "--config=configs/common.py", "--config.optim.schedule=wsd", "--config.optim.decay_fraction=0.25",
    "--config.optim.warmup_fraction=None", "--config.optim.warmup_tokens=2048",
]  # fmt: skip
BASE = config_file.load(FLAGS).base.to_dict()
STEP = 2048  # tokens
TOKENS = grid.axis("train.tokens", [8 * STEP, 16 * STEP, 32 * STEP])


def planned(*cells, base=BASE):
    return plan_runs(grid.expand(base, list(cells)), STORE)


def test_runs_that_differ_in_tokens_alone_share_a_trunk():
    runs = planned(*grid.product(TOKENS, grid.axis("seed", [0, 1])), {"seed": 2})
    first, second = jobs.trunks(runs)
    assert (first.name, second.name) == ("n98k-g1-s0", "n98k-g1-s1")
    assert [run.name for run in first.branches] == ["n98k-d16k-g1-s0", "n98k-d33k-g1-s0", "n98k-d66k-g1-s0"]
    assert first.points == (6, 12, 24)
    assert first.planned.config == first.branches[-1].config
    assert jobs.trunk_of(runs, "n98k-d384k-g1-s2") is None and jobs.trunk_of(runs, "n98k-d33k-g1-s1") == second
    with pytest.raises(UserError, match=r"--trunk=x: the sweep has no such trunk; it has n98k-g1-s0"):
        jobs.trunk_called(runs, "x")


@pytest.mark.parametrize("cell", [{"seed": 3}, {"optim.learning_rate": 1e-3}, {"optim.eps": 1e-6}], ids=str)
def test_runs_with_other_results_share_no_trunk(cell):
    assert not jobs.trunks(planned(TOKENS[0], TOKENS[1] | cell))


@pytest.mark.parametrize(
    "cell",
    [{"mesh.data": 2}, {"checkpoint.keep": 5, "checkpoint.every_steps": 3}, {"train.microbatches": 2}, {"wandb": "x"}],
    ids=str,
)
def test_runs_that_are_done_in_another_way_share_their_trunk(cell):
    """It is done as its longest branch is."""
    alike = jobs.trunks(planned(*TOKENS))
    for changed in range(len(TOKENS)):
        runs = planned(*(c | cell if i == changed else c for i, c in enumerate(TOKENS)))
        (trunk,) = jobs.trunks(runs)
        assert (trunk.name, trunk.points) == (alike[0].name, alike[0].points)
        assert trunk.branches == runs and trunk.planned.config == runs[-1].config
        assert [job.waits_for for job in jobs.jobs_of(runs)] == [None] + [trunk.name] * 3


def test_runs_that_have_no_step_in_common_have_no_trunk():
    from_the_first = {"optim.decay_fraction": 1.0, "optim.warmup_tokens": 0}
    runs = planned(*(cell | from_the_first for cell in TOKENS))
    assert [run.config.decay_start for run in runs] == [0, 0, 0] and not jobs.trunks(runs)
    assert [job.flags for job in jobs.jobs_of(runs)] == [(f"--run={run.name}",) for run in runs]


def test_cosine_runs_have_no_trunk():
    base = config_file.load(["--config=configs/common.py"]).base.to_dict()
    runs = planned(*TOKENS, base=base)
    assert not jobs.trunks(runs)
    assert [job.flags for job in jobs.jobs_of(runs)] == [(f"--run={run.name}",) for run in runs]
    assert jobs.saving(runs).tokens == jobs.saving(runs).tokens_alone


@pytest.mark.parametrize("apart", [True, False])
def test_every_run_is_given_once_and_every_step_trained_once(apart):
    runs = planned(*grid.product(TOKENS, grid.axis("moe.granularity", [1, 2])), {"seed": 9})
    all_jobs = jobs.jobs_of(runs, apart=apart)
    assert sorted(run.name for job in all_jobs for run in job.runs) == sorted(run.name for run in runs)
    place = {job.name: i for i, job in enumerate(all_jobs)}
    assert len(place) == len(all_jobs) == (2 + 7 if apart else 3)
    assert all(job.waits_for is None or place[job.waits_for] < place[job.name] for job in all_jobs)
    assert any(job.waits_for for job in all_jobs) == apart
    # The longest path, and what each branch has after its point; 0.25 of 8, 16 and 32 steps.
    assert sum(job.tokens for job in all_jobs) == STEP * (2 * (24 + 2 + 4 + 8)) + 384_000 // STEP * STEP + STEP
    shared = jobs.saving(runs)
    assert shared.trunks == 2 and shared.tokens == sum(job.tokens for job in all_jobs)
    assert shared.tokens_alone == sum(run.counts.tokens for run in runs)
    assert shared.train_flops == pytest.approx(sum(job.train_flops for job in all_jobs))


def test_a_trunk_keeps_its_name_when_the_grid_grows():
    few, more = planned(*TOKENS[:2]), planned(*TOKENS)
    assert jobs.trunks(few)[0].name == jobs.trunks(more)[0].name


def test_runs_that_name_themselves_have_trunks_all_the_same():
    cells = [dataclasses.replace(cell, name=f"r{i}") for i, cell in enumerate(TOKENS)]
    (trunk,) = jobs.trunks(planned(*cells))
    assert trunk.name.startswith("trunk-") and len(trunk.name) <= 28


def test_two_trunks_of_one_name_are_refused():
    cells = [TOKENS[0] | {"optim.eps": 1e-6}, TOKENS[1] | {"optim.eps": 1e-6}]
    cells += [{"train.tokens": 64 * STEP}, {"train.tokens": 128 * STEP}]
    with pytest.raises(UserError, match=r"would be called n98k-g1-s0, as another trunk or run is; give the cells"):
        jobs.trunks(planned(*cells))


def test_runs_that_differ_in_seed_and_rate_alone_are_packed():
    """At most sweep.pack together, never the branches of a trunk; what a pack is called does not change as a grid
    grows."""
    base = config_file.load(["--config=configs/common.py", "--config.sweep.pack=4"]).base.to_dict()
    cells = grid.product(grid.axis("seed", [0, 1, 2]), grid.axis("optim.learning_rate", [1e-3, 2e-3]))
    runs = planned({"moe.granularity": 2}, *cells, {"train.tokens": STEP}, base=base)
    single, four, two, other = jobs.jobs_of(runs)
    assert [len(job.runs) for job in (single, four, two, other)] == [1, 4, 2, 1]
    assert four.flags == (f"--pack={four.name}",) and four.waits_for is None
    assert four.tokens == sum(run.counts.tokens for run in four.runs)
    assert jobs.pack_called(runs, four.name) == list(four.runs)
    assert [job.name for job in jobs.jobs_of(runs, packed=False)] == [run.name for run in runs]
    assert jobs.jobs_of(planned(*cells[:3], base=base))[0].name == four.name
    with pytest.raises(UserError, match=r"--pack=x: the sweep has no such pack; it has pack-"):
        jobs.pack_called(runs, "x")
    branching = planned(*grid.product(TOKENS, cells), base=BASE | {"sweep": {"pack": 4}})
    assert not jobs.packs(branching) and len(jobs.trunks(branching)) == 6


def test_what_a_trunk_still_has_to_do_follows_from_the_files(tmp_path):
    workdir = Workdir(str(tmp_path))
    runs = workdir.accept(Manifest("s000000", "", STORE, planned(*TOKENS)), whole=True).runs
    (trunk,) = jobs.trunks(runs)
    folder = workdir.trunk_dir(trunk.name)
    by_name = {job.name: job for job in jobs.jobs_of(runs)}
    long, short = by_name["n98k-d66k-g1-s0"], by_name["n98k-d16k-g1-s0"]

    def state():
        return jobs.trunk_state(trunk, workdir, 0.0).state

    assert state() == "queued" and trunk.end(workdir) == 24
    assert not jobs.is_ready(short, workdir) and jobs.is_ready(by_name[trunk.name], workdir)
    folder.create()
    attempt = folder.begin_attempt()
    folder.checkpoints.mkdir()
    (folder.checkpoints / "6").mkdir()
    assert not jobs.is_ready(short, workdir)  # the digest is written last
    (folder.checkpoints / "6.sha256.json").write_text("{}")
    assert jobs.is_ready(short, workdir) and not jobs.is_ready(long, workdir)
    folder.end_attempt(attempt, 1, "crashed")
    assert state() == "failed" and not jobs.is_ready(long, workdir)
    folder.end_attempt(folder.begin_attempt(), 3, "not finite")
    assert state() == "diverged" and jobs.is_ready(long, workdir)
    (folder.path / "attempts" / f"{folder.begin_attempt()}.json").write_text('{"ended": 1, "exit_code": [1]}')
    assert state() == "failed"
    workdir.run_dir(long.name).create()
    workdir.run_dir(long.name).result_path.write_text(sealed_text({"status": "done"}))
    assert trunk.end(workdir) == 12  # nobody needs the last stretch
    for run in runs:
        workdir.run_dir(run.name).create()
        workdir.run_dir(run.name).result_path.write_text(sealed_text({"status": "done"}))
    assert state() == "done"
    assert jobs.is_ready(long, workdir)  # these results are damaged: nobody would train the trunk for them
