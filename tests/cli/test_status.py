"""status: every state from files alone, in a table, in JSON, and again with --watch."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from moe_jax import text as text_lib
from moe_jax.cli import status, tables
from moe_jax.errors import UserError
from moe_jax.sweep import jobs
from moe_jax.sweep.heartbeat import Phase
from moe_jax.sweep.run_state import STALE_SECONDS, State
from moe_jax.sweep.select_jobs import LauncherView, RetryRequest, select_jobs
from moe_jax.sweep.snapshot import take_snapshot
from moe_jax.sweep.submission_records import SubmissionRecords
from tests import synthetic_sweep as synthetic
from tests.hand_edits import sealed_text
from tests.unreadable import unreadable

HALF = {"step": 20, "loss": 3.25}


@pytest.fixture
def mixed_states(tmp_path):
    """One run in each state, the others queued; gives the workdir and the run of each state."""
    work, planned = synthetic.make(tmp_path / "w")
    of = dict(zip(["done", "diverged", "running", "stale", "failed", "damaged", "stopped"], planned, strict=False))
    synthetic.finish(work, of["done"])
    synthetic.finish(work, of["diverged"], synthetic.diverged_result_of(of["diverged"], 20))
    synthetic.begin(work, of["running"], **HALF)
    synthetic.set_back(synthetic.begin(work, of["stale"], **HALF)[0], STALE_SECONDS + 60)
    folder, attempt = synthetic.begin(work, of["failed"], **HALF)
    folder.end_attempt(attempt, 1, "out of memory: 3 GiB asked,\n\x1b[31m1 GiB there")
    folder, _ = synthetic.begin(work, of["damaged"], **HALF)
    folder.result_path.write_text('{"name": "torn')
    folder, attempt = synthetic.begin(work, of["stopped"], **HALF)
    folder.end_attempt(attempt, 75, "asked to stop")
    return work, of


def test_each_state_is_told_from_files(mixed_states):
    work, of = mixed_states
    snap = take_snapshot(work)
    seen = {line.name: line for line in snap.lines}
    for state in State:
        name = of["stopped" if state == "queued" else state].name
        assert seen[name].state == state
    assert snap.totals == {"queued": 21, "running": 1, "stale": 1, "failed": 1, "diverged": 1, "done": 1, "damaged": 1}
    assert "out of memory" in seen[of["failed"].name].sentence
    assert "result.json" in seen[of["damaged"].name].sentence
    assert "step 20" in seen[of["diverged"].name].sentence
    assert not snap.finished


def test_what_was_stopped_and_never_came_back_is_stale(mixed_states):
    """Its job may be out of restarts, which a launcher's files here do not tell."""
    work, of = mixed_states
    path = work.run_dir(of["stopped"].name).path / "attempts" / "1.json"
    attempt = json.loads(path.read_text())
    path.write_text(json.dumps(attempt | {"ended": attempt["ended"] - 86_400}))
    assert take_snapshot(work).totals == {
        "queued": 20, "running": 1, "stale": 2, "failed": 1, "diverged": 1, "done": 1, "damaged": 1
    }  # fmt: skip


def test_progress_and_time_left_of_a_running_run(mixed_states):
    work, of = mixed_states
    line = next(line for line in take_snapshot(work).lines if line.state == "running")
    run = of["running"]
    assert (line.step, line.steps) == (20, run.config.steps)
    rate = work.run_dir(run.name).heartbeat().tokens_per_second
    assert line.seconds_left == pytest.approx((run.config.steps - 20) * run.config.batch_tokens / rate)
    assert (line.train_loss, line.eval_loss, line.tokens_per_second) == (3.25, None, rate)
    assert 0 <= line.age_seconds < 60


@pytest.mark.parametrize(
    ("phase", "said"), [(Phase.TRAINING, "running"), (Phase.COMPILING, "running (compiling)"), ("?", "running")]
)
def test_the_phase_is_said_of_a_run_that_does_not_train(tmp_path, phase, said):
    work, planned = synthetic.make(tmp_path / "w", synthetic.cells(widths=[16], tokens=[96_000], granularities=[1]))
    synthetic.begin(work, planned[0], step=3, phase=phase)
    assert status.table(take_snapshot(work)).rows[0][1] == said


def test_done_share_of_the_flops(tmp_path):
    work, planned = synthetic.make(tmp_path / "w")
    assert take_snapshot(work).flops_done == 0
    synthetic.finish(work, planned[-1])
    expected = planned[-1].counts.train_flops / sum(run.counts.train_flops for run in planned)
    assert take_snapshot(work).flops_done == pytest.approx(expected)
    for run in planned[:-1]:
        synthetic.finish(work, run)
    snap = take_snapshot(work)
    assert snap.flops_done == pytest.approx(1)
    assert snap.finished


def test_plain_lines_outside_a_terminal(mixed_states, capsys):
    work, of = mixed_states
    assert status.main(["--workdir", str(work.path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    lines = out.splitlines()
    assert sum(run.name in line for line in lines for run in [of["done"]]) == 1
    failed = next(line for line in lines if line.startswith(f"{of['failed'].name} (failed)"))
    assert failed.endswith("out of memory: 3 GiB asked, [31m1 GiB there")  # one line, without the escape sequence
    assert lines[-1].startswith("27 runs: 21 queued, 1 running, 1 stale, 1 failed, 1 diverged, 1 done, 1 damaged; ")


def test_json_holds_what_the_table_shows(mixed_states, capsys):
    work, of = mixed_states
    assert status.main(["--workdir", str(work.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(told["totals"].values()) == len(told["runs"]) == 27
    running = next(run for run in told["runs"] if run["name"] == of["running"].name)
    assert running["step"] == 20 and running["state"] == "running" and running["attempts"] == 1


@pytest.mark.parametrize(
    "beat",
    [
        {"loss": "<b>", "tokens_per_second": "fast", "phase": ["x"]},
        {"loss": None, "tokens_per_second": 0},
        {"loss": float("inf"), "tokens_per_second": True},
        {"step": "x"},
        {"step": None, "time": None},
        {"step": float("nan"), "time": "yesterday"},
    ],
)
def test_a_foreign_heartbeat_is_not_believed(tmp_path, capsys, beat):
    work, planned = synthetic.make(tmp_path / "w")
    folder, _ = synthetic.begin(work, planned[0], step=3)
    (folder.path / "heartbeat.json").write_text(json.dumps({"step": 3, "time": time.time()} | beat))
    line = take_snapshot(work).lines[0]
    assert (line.state, line.train_loss, line.seconds_left) == ("running", None, None)
    assert line.step == (0 if "step" in beat else 3)
    assert status.main(["--workdir", str(work.path)]) == 0
    assert planned[0].name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "content", "state"),
    [
        ("attempts/1.json", {"began": "x"}, "stale"),
        ("attempts/1.json", {"began": 1, "ended": 2, "exit_code": "x", "sentence": 5}, "failed"),
        ("result.json", {"status": "diverged", "steps": None}, "damaged"),
        ("result.json", {"status": "done", "steps": "x"}, "damaged"),
        ("result.json", {"status": "done", "steps": float("inf")}, "damaged"),
        ("heartbeat.json", {"step": -5, "time": 1}, "running"),
        ("heartbeat.json", {"step": 1e300, "time": 1}, "running"),
        ("heartbeat.json", {"step": 10**400, "time": 10**400, "loss": 10**400}, "running"),
    ],
)
def test_a_mangled_file_hides_no_other_run(tmp_path, capsys, file, content, state):
    work, planned = synthetic.make(tmp_path / "w", synthetic.cells(widths=[16], granularities=[1]))
    folder, _ = synthetic.begin(work, planned[0])
    (folder.path / file).write_text(json.dumps(content))
    synthetic.finish(work, planned[1])
    seen = take_snapshot(work)
    assert [line.state for line in seen.lines] == [state, "done", "queued"]
    assert all(0 <= line.step <= line.steps for line in seen.lines)
    assert status.main(["--workdir", str(work.path)]) == 0
    assert "3 runs: " in capsys.readouterr().out


@pytest.mark.parametrize("make", [os.mkdir, lambda path: os.symlink("result.json", path)])
def test_what_is_no_file_is_damaged(tmp_path, make):
    work, planned = synthetic.make(tmp_path / "w", synthetic.cells(widths=[16], granularities=[1]))
    folder, _ = synthetic.begin(work, planned[0], step=planned[0].config.steps)
    make(folder.result_path)
    seen = take_snapshot(work)
    assert [line.state for line in seen.lines] == ["damaged", "queued", "queued"] and seen.flops_done == 0
    folder.set_damaged_result_aside()
    assert folder.result() is None


def test_watch_ends_when_no_run_is_waited_for(tmp_path, capsys):
    work, planned = synthetic.make(tmp_path / "w", synthetic.cells(widths=[16], granularities=[1, 2]))
    for run in planned[1:]:
        synthetic.finish(work, run)
    threading.Timer(0.3, lambda: synthetic.finish(work, planned[0])).start()
    assert status.main(["--workdir", str(work.path), "--watch", "--every", "0.05"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "1 queued" in lines[0]
    assert "6 done; 100% of the FLOPs done" in lines[-1]
    assert len(lines) == len(set(lines))  # nothing is said twice in a log file


def test_json_watch_gives_an_object_a_line(tmp_path, capsys):
    work, planned = synthetic.make(tmp_path / "w", synthetic.cells(widths=[16], tokens=[96_000], granularities=[1]))
    synthetic.finish(work, planned[0])
    assert status.main(["--workdir", str(work.path), "--watch", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["totals"] == {"done": 1}


@pytest.fixture
def branching(tmp_path):
    """Two runs that share a trunk: (workdir, the short run, the long one, the trunk)."""
    wsd = {"schedule": "wsd", "decay_fraction": 0.25, "warmup_fraction": None, "warmup_tokens": 4096}
    wsd = {f"optim.{field}": value for field, value in wsd.items()}
    work, planned = synthetic.make(tmp_path / "w", [{"train.tokens": t} | wsd for t in (192_000, 384_000)])
    (trunk,) = jobs.trunks(planned)
    return work, *planned, trunk


def test_a_trunk_has_a_line_of_its_own_and_counts_by_its_flops(branching, capsys):
    work, short, long, trunk = branching
    folder = work.trunk_dir(trunk.name)
    folder.create()
    attempt = folder.begin_attempt()
    synthetic.beat(folder, trunk.planned, step=trunk.points[-1] // 2)
    snap = take_snapshot(work)
    (line,) = snap.trunks
    assert (line.name, line.state, line.steps) == (trunk.name, "running", trunk.points[-1])
    assert snap.totals == {"queued": 2}
    own = [long.config.decay_start, *(run.config.steps - run.config.decay_start for run in (short, long))]
    assert [line.share for line in (*snap.trunks, *snap.lines)] == pytest.approx([n / sum(own) for n in own])
    assert snap.flops_done == pytest.approx(0.5 * line.share, rel=0.05)
    folder.end_attempt(attempt, 1, "out of memory")
    (line,) = take_snapshot(work).trunks
    assert line.state == "failed"
    assert f"trunk {trunk.name} (failed): out of memory" in status.words(take_snapshot(work))
    for run in (short, long):
        synthetic.finish(work, run)
    snap = take_snapshot(work)
    assert snap.flops_done == pytest.approx(1.0) and snap.trunks[0].state == "done"
    assert status.main(["--workdir", str(work.path), "--json"]) == 0
    assert [t["name"] for t in json.loads(capsys.readouterr().out)["trunks"]] == [trunk.name]


def test_what_was_submitted_has_its_launchers_name(tmp_path):
    work, planned = synthetic.make(tmp_path / "w", synthetic.cells(widths=[16], tokens=[96_000]))
    assert "job" not in status.table(take_snapshot(work)).headings
    given = SubmissionRecords(work)
    selection = select_jobs(work, work.existing_manifest(), {}, RetryRequest(), LauncherView(None))
    given.claim(selection.submissions[1], "xpk", selection.submissions[1].id)
    given.confirm(selection.submissions[1], "xpk", selection.submissions[1].id)
    given.summarise()
    folder, _ = synthetic.begin(work, planned[1], step=3, loss=4.0)
    synthetic.set_back(folder, 3600)
    snap = take_snapshot(work)
    assert [line.job for line in snap.lines] == [None, f"tiny-{planned[1].name}", None]
    assert "to continue it, use submit --retry_failed" in snap.lines[1].sentence
    assert "job" in status.table(snap).headings
    (work.path / "submission.json").write_text("{")
    assert [line.job for line in take_snapshot(work).lines] == [None] * 3


def test_no_sweep_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"holds no sweep \(no sweep.json\)"):
        status.main(["--workdir", str(tmp_path)])
    for every in ("0", "inf", "nan", "-1"):
        with pytest.raises(UserError, match=f"--every={every}: must be above 0"):
            status.main(["--workdir", str(tmp_path), "--every", every])


def test_the_rich_table_shows_markup_as_text(tmp_path):
    from rich.console import Console

    table = tables.Table(["run", ">loss"], [["[red]x[/red]", "1.0"], ["[/]", "\x1b[2J"]], ["green", ""])
    console = Console(record=True, width=60, file=io.StringIO())
    console.print(tables.rich_table(table))
    text = console.export_text()
    assert "[red]x[/red]" in text and "[/]" in text and "\x1b" not in text


def test_a_narrow_terminal_gets_fewer_columns_not_broken_ones(mixed_states):
    work, _ = mixed_states
    table = status.table(take_snapshot(work))
    assert table.fitted(1000) == table
    narrow = table.fitted(80)
    assert max(map(len, tables.plain_lines(narrow))) <= 80
    assert set(narrow.headings) > {"run", "state", ">step", ">eval loss"}
    assert all(len(row) == len(narrow.headings) for row in narrow.rows)


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "–"), (0, "0"), (0.58, "0.58"), (34_816, "34.8k"), (999_999, "1M"), (3_652_190_208, "3.65B"), (950, "950")],
)
def test_short_numbers(value, said):
    assert text_lib.short(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),
        (0.4, "0 s"),
        (89, "89 s"),
        (600, "10 min"),
        (5400, "1 h 30 min"),
        (3 * 86400 + 4 * 3600, "3 d 04 h"),
    ],
)
def test_durations(seconds, said):
    assert text_lib.duration(seconds) == said


def test_status_and_collect_import_nothing_heavy():
    code = "import sys, moe_jax.cli.status, moe_jax.cli.collect; print([m for m in sys.modules if m in %r])"
    heavy = ("jax", "flax", "matplotlib", "pandas", "tensorflow", "scipy", "rich")
    done = subprocess.run([sys.executable, "-c", code % (heavy,)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_cannot_be_read_of_one_run_hides_no_other(mixed_states):
    work, of = mixed_states
    done, queued, failed = (work.run_dir(of[name].name) for name in ("done", "stopped", "failed"))
    before = {line.name: line for line in take_snapshot(work).lines}
    with unreadable(done.result_path, queued.path / "attempts", failed.path / "attempts" / "1.json"):
        seen = {line.name: line for line in take_snapshot(work).lines}
    for folder in (done, queued):
        assert seen[folder.name].state == State.DAMAGED
        assert "Permission denied" in seen[folder.name].sentence and folder.name in seen[folder.name].sentence
    assert seen[failed.name].attempts == 1  # the start is known, not how it ended
    others = seen.keys() - {done.name, queued.name, failed.name}
    assert len(others) == 24 and all(seen[name].state == before[name].state for name in others)


@pytest.mark.parametrize("put", ["file", "link", "loop", "pipe"])
def test_something_else_where_a_runs_folder_or_its_starts_belong(mixed_states, put):
    work, _ = mixed_states
    for run, place in zip(work.existing_manifest().runs[-2:], ("attempts", ""), strict=True):
        path = Path(work.run_dir(run.name).path / place)
        path.parent.mkdir(parents=True, exist_ok=True)
        {
            "file": path.touch, "link": lambda path=path: path.symlink_to("nowhere"),
            "loop": lambda path=path: path.symlink_to(path.name), "pipe": lambda path=path: os.mkfifo(path),
        }[put]()  # fmt: skip
    seen = take_snapshot(work)
    assert seen.totals["done"] == 1 and len(seen.lines) == 27


def test_a_summary_of_submissions_that_cannot_be_read_is_said(mixed_states, capsys):
    work, _ = mixed_states
    (work.path / "submission.json").write_text('{"jobs": [')
    assert status.main([f"--workdir={work.path}"]) == 0
    assert "the launcher's names of the jobs are not known" in capsys.readouterr().out
    (work.path / "submission.json").write_text(sealed_text({"jobs": [{"id": 3}]}))
    assert "submission.json: is damaged (KeyError" in " ".join(status.words(take_snapshot(work)))
