"""Checks of one sweep: its config, its token store, its workdir, and whether its jobs can see them."""

import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from etils import epath

from moe_jax import files
from moe_jax.cli.checks import Finding
from moe_jax.config import config_file
from moe_jax.config.config_file import ConfigFile
from moe_jax.data.store import Store
from moe_jax.errors import UserError
from moe_jax.plan.rows import PLAN_FILE
from moe_jax.sweep import from_config
from moe_jax.sweep.planned_grid import PlannedGrid, plan_grid
from moe_jax.sweep.workdir import Workdir
from moe_jax.text import count

_PROBE_SECONDS = 60.0
_CHECKPOINT_BYTES = 12  # a parameter: itself and Adam's two moments, float32
_GIB = 2**30


def findings(
    config_args: Sequence[str], workdir: str | None, launcher: str | None,
    load: Callable[[Sequence[str]], ConfigFile] = config_file.load,
) -> Iterator[Finding]:  # fmt: skip
    """The checks of the config, which `load` reads, and of the workdir, where they are given."""
    file, grid, held = None, None, None
    if config_args:
        file, grid, found = config(config_args, load)
        yield found
    if grid is not None:
        held = store(file, grid)
        yield held
        if found := paths(file, workdir, launcher):
            yield found
    if workdir is not None:
        yield probe(workdir)
        yield sweep(workdir, file if held is not None and held.state == "ok" else None)
        if grid is not None and (found := space(workdir, grid)):
            yield found
        yield plan(workdir)


def config(
    config_args: Sequence[str], load: Callable[[Sequence[str]], ConfigFile] = config_file.load
) -> tuple[ConfigFile | None, PlannedGrid | None, Finding]:
    """Whether the config file can be read and its runs planned. Returns (the file, its runs, the finding)."""
    try:
        file = load(config_args)
        grid = plan_grid(file, store_required=False)
    except UserError as e:
        return None, None, Finding("fail", "config", str(e), "")
    return file, grid, Finding("ok", "config", f"{file.spec}: {count(len(grid.runs), 'run')}")


def store(file: ConfigFile, grid: PlannedGrid) -> Finding:
    """Whether the store exists, holds what the runs ask for, and can be read at both ends."""
    if grid.store is None:
        return Finding(
            "fail", "store", f"there is none at {file.config.data.store}", f"make it: moe-jax prepare {file.flags}"
        )
    refused = {run.name: reason for run in grid.runs if (reason := grid.refusal(run))}
    if refused:
        name, reason = next(iter(refused.items()))
        return Finding("fail", "store", f"{count(len(refused), 'run')} will not start, the first {name}: {reason}")
    try:
        _read_ends(grid.store)
    except UserError as e:
        return Finding("fail", "store", str(e), "prepare it again")
    return Finding("ok", "store", grid.store_sentence)


def _read_ends(held: Store) -> None:
    for split, tokens in held.info.tokens.items():
        length = min(64, tokens)
        held.windows(split, np.array([0, tokens - length]), length)


def paths(file: ConfigFile, workdir: str | None, launcher: str | None) -> Finding | None:
    """Whether jobs that run elsewhere can see the store and the workdir."""
    if launcher in (None, "local"):
        return None
    here = [path for path in (file.config.data.store, workdir) if path is not None and not files.is_remote(path)]
    if not here:
        return Finding("ok", "paths", "the jobs can see the store and the workdir")
    return Finding(
        "warn", "paths", f"{' and '.join(here)}: on this machine, but {launcher} runs jobs elsewhere",
        "use gs://, or a disk that all hosts mount at the same path (submit --shared_filesystem)",
    )  # fmt: skip


def probe(workdir: str) -> Finding:
    """Whether a small file can be written, read and deleted in the workdir, or where it would be made."""
    folder = epath.Path(workdir) if files.is_remote(workdir) else epath.Path(_nearest(Path(workdir)))
    path = folder / f".moe_jax_doctor_{uuid.uuid4().hex[:8]}"

    def write_and_delete() -> Finding:
        path.write_bytes(b"doctor")
        try:
            if path.read_bytes() != b"doctor":
                return Finding("fail", "workdir", f"{folder} returns other bytes than were written")
        finally:
            path.unlink()
        return Finding("ok", "workdir", f"{workdir} can be written and read")

    return within(_PROBE_SECONDS, write_and_delete, lambda why: _cannot_write(workdir, why))


def _cannot_write(workdir: str, why: str) -> Finding:
    if "gcsfs" in why and files.is_remote(workdir):
        return Finding("fail", "workdir", f"{workdir}: gs:// needs gcsfs", "pip install 'moe_jax[gcs]'")
    remedy = "choose another workdir, or get the right to write there"
    if files.is_remote(workdir):
        remedy = "sign in (gcloud auth application-default login), and get the bucket's storage.objectUser role"
    return Finding("fail", "workdir", f"{workdir} cannot be written: {why}", remedy)


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())


def within(seconds: float, work: Callable[[], Finding], otherwise: Callable[[str], Finding]) -> Finding:
    """The finding of `work`, or that of `otherwise` for its error or for no answer within `seconds`."""
    found: list[Finding] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as e:  # any error of an object store's client is the finding
            found.append(otherwise(f"{type(e).__name__}: {e}"))

    thread = threading.Thread(target=run, daemon=True)  # a hanging thread must not keep the process alive
    thread.start()
    thread.join(seconds)
    return found[0] if found else otherwise(f"no answer for {seconds:.0f} s")


def sweep(workdir: str, file: ConfigFile | None) -> Finding:
    """Whether the workdir can be read, and whether its sweep accepts this grid."""
    work = Workdir(workdir)
    try:
        manifest = work.manifest()
        if file is not None:
            from_config.enter(file, work, whole_grid=True, writes=False)
    except (UserError, OSError) as e:
        remedy = "move it away" if isinstance(e, files.DamagedFile) else ""
        return Finding("fail", "sweep", str(e), remedy)
    if manifest is None:
        return Finding("ok", "sweep", f"{workdir} holds no sweep yet")
    return Finding("ok", "sweep", f"{workdir} holds a sweep of {count(len(manifest.runs), 'run')}")


def space(workdir: str, grid: PlannedGrid) -> Finding | None:
    """Whether a local disk can hold the checkpoints of all runs; None for an object store."""
    if files.is_remote(workdir):
        return None
    free = shutil.disk_usage(_nearest(Path(workdir))).free
    kept = sum(run.config.checkpoint.keep * _CHECKPOINT_BYTES * run.counts.n_total for run in grid.runs)
    says = f"checkpoints of all runs will take {kept / _GIB:,.2f} GiB, and {free / _GIB:,.2f} GiB are free"
    if kept < free:
        return Finding("ok", "space", says)
    return Finding("fail", "space", says, "choose another workdir, or a smaller config.checkpoint.keep")


def plan(workdir: str) -> Finding:
    """Whether the workdir has a plan that submit can read."""
    path = epath.Path(workdir) / PLAN_FILE
    try:
        values = files.read_sealed(path)
    except FileNotFoundError:
        return Finding(
            "warn", "plan", "there is no plan.json, so submit cannot say what the runs cost or whether they fit",
            f"moe-jax plan --topology=… --workdir={workdir}",
        )  # fmt: skip
    except (files.DamagedFile, OSError) as e:
        return Finding("fail", "plan", str(e), "move it away and make it again")
    runs = values.get("runs")
    named = isinstance(runs, list) and all(isinstance(r, dict) and isinstance(r.get("name"), str) for r in runs)
    if not named or not isinstance(values.get("totals"), dict):
        return Finding(
            "fail", "plan", f"{path} is no plan (runs with names, and totals)", "move it away and make it again"
        )
    return Finding("ok", "plan", f"{path}")
