"""One sweep: its config, its token store, its folder, and what its jobs will see of them."""

import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from etils import epath

from moe_jax import configfile, files, outlook, planning
from moe_jax.checks import Finding
from moe_jax.configfile import ConfigFile
from moe_jax.data.store import Store
from moe_jax.errors import UserError
from moe_jax.outlook import Outlook
from moe_jax.tables import count
from moe_jax.workdir import Workdir

_PROBE_SECONDS = 60.0
_CHECKPOINT_BYTES = 12  # of a parameter: itself and Adam's two moments, float32
_GIB = 2**30


def findings(config_args: Sequence[str], workdir: str | None, launcher: str | None) -> Iterator[Finding]:
    """What can be said of the config, if one is given, and of the workdir, if one is."""
    file, grid, held = None, None, None
    if config_args:
        file, grid, found = config(config_args)
        yield found
    if grid is not None:
        held = store(file, grid)
        yield held
        if found := places(file, workdir, launcher):
            yield found
    if workdir is not None:
        yield probe(workdir)
        yield sweep(workdir, file if held is not None and held.state == "ok" else None)
        if grid is not None and (found := space(workdir, grid)):
            yield found
        yield plan(workdir)


def config(config_args: Sequence[str]) -> tuple[ConfigFile | None, Outlook | None, Finding]:
    try:
        file = configfile.load(config_args)
        grid = outlook.of(file)
    except UserError as e:
        return None, None, Finding("fail", "config", str(e), "")
    return file, grid, Finding("ok", "config", f"{file.spec}: {count(len(grid.runs), 'run')}")


def store(file: ConfigFile, grid: Outlook) -> Finding:
    """The store is there, holds what the runs ask for, and can be read at its beginning and at its end."""
    if grid.store is None:
        return Finding(
            "fail", "store", f"there is none at {file.config.data.store}", f"make it: moe-jax prepare {file.flags}"
        )
    refused = {run.name: reason for run in grid.runs if (reason := grid.refusal(run))}
    if refused:
        name, reason = next(iter(refused.items()))
        return Finding("fail", "store", f"{count(len(refused), 'run')} will not begin, the first {name}: {reason}")
    try:
        _read_ends(grid.store)
    except UserError as e:
        return Finding("fail", "store", str(e), "prepare it again")
    return Finding("ok", "store", grid.sentence)


def _read_ends(held: Store) -> None:
    for split, tokens in held.info.tokens.items():
        length = min(64, tokens)
        held.windows(split, np.array([0, tokens - length]), length)


def places(file: ConfigFile, workdir: str | None, launcher: str | None) -> Finding | None:
    """Jobs that run elsewhere do not see this machine's disk."""
    if launcher in (None, "local"):
        return None
    here = [path for path in (file.config.data.store, workdir) if path is not None and "://" not in path]
    if not here:
        return Finding("ok", "places", "the jobs can see the store and the workdir")
    return Finding(
        "warn", "places", f"{' and '.join(here)}: on this machine, and {launcher} runs jobs elsewhere",
        "put it on gs://, or on a disk that all hosts mount at the same path (submit --shared_filesystem)",
    )  # fmt: skip


def probe(workdir: str) -> Finding:
    """Writes, reads and deletes a small file in the workdir, or where it would be made."""
    folder = epath.Path(workdir) if "://" in workdir else epath.Path(_nearest(Path(workdir)))
    path = folder / f".moe_jax_doctor_{uuid.uuid4().hex[:8]}"

    def write_and_delete() -> Finding:
        path.write_bytes(b"doctor")
        try:
            if path.read_bytes() != b"doctor":
                return Finding("fail", "workdir", f"{folder} gives back other bytes than were written to it")
        finally:
            path.unlink()
        return Finding("ok", "workdir", f"{workdir} can be written and read")

    return within(_PROBE_SECONDS, write_and_delete, lambda why: _cannot_write(workdir, why))


def _cannot_write(workdir: str, why: str) -> Finding:
    if "gcsfs" in why and "://" in workdir:
        return Finding("fail", "workdir", f"{workdir}: gs:// needs gcsfs", "pip install 'moe_jax[gcs]'")
    remedy = "choose another, or get the right to write there"
    if "://" in workdir:
        remedy = "sign in (gcloud auth application-default login), and get the bucket's storage.objectUser role"
    return Finding("fail", "workdir", f"{workdir} cannot be written: {why}", remedy)


def _nearest(path: Path) -> Path:
    """The path, or the folder above it that exists."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())


def within(seconds: float, work: Callable[[], Finding], otherwise: Callable[[str], Finding]) -> Finding:
    """What `work` finds; what `otherwise` makes of its error, or of silence for too long."""
    found: list[Finding] = []

    def go() -> None:
        try:
            found.append(work())
        except Exception as e:  # whatever an object store's client throws is the finding
            found.append(otherwise(f"{type(e).__name__}: {e}"))

    thread = threading.Thread(target=go, daemon=True)  # one that hangs must not keep the process
    thread.start()
    thread.join(seconds)
    return found[0] if found else otherwise(f"no answer for {seconds:.0f} s")


def sweep(workdir: str, file: ConfigFile | None) -> Finding:
    """What is in the workdir already, and whether this grid may go on there."""
    work = Workdir(workdir)
    try:
        manifest = work.manifest()
        if file is not None:
            planning.enter(file, work, whole_grid=True, writes=False)
    except (UserError, OSError) as e:
        remedy = "set it aside" if isinstance(e, files.DamagedFile) else ""
        return Finding("fail", "sweep", str(e), remedy)
    if manifest is None:
        return Finding("ok", "sweep", f"{workdir} holds none yet")
    return Finding("ok", "sweep", f"{workdir} holds one of {count(len(manifest.runs), 'run')}")


def space(workdir: str, grid: Outlook) -> Finding | None:
    """Whether a local disk can hold all runs' checkpoints; None for an object store."""
    if "://" in workdir:
        return None
    free = shutil.disk_usage(_nearest(Path(workdir))).free
    kept = sum(run.config.checkpoint.keep * _CHECKPOINT_BYTES * run.counts["n_total"] for run in grid.runs)
    says = f"checkpoints of all runs will take {kept / _GIB:,.2f} GiB, and {free / _GIB:,.2f} GiB are free"
    if kept < free:
        return Finding("ok", "space", says)
    return Finding("fail", "space", says, "choose another workdir, or a smaller config.checkpoint.keep")


def plan(workdir: str) -> Finding:
    path = epath.Path(workdir) / "plan.json"
    try:
        values = files.read_json(path)
    except FileNotFoundError:
        return Finding(
            "warn", "plan", "there is no plan.json: submit cannot say what the runs cost, nor whether they fit",
            f"moe-jax plan --topology=… --workdir={workdir}",
        )  # fmt: skip
    except (files.DamagedFile, OSError) as e:
        return Finding("fail", "plan", str(e), "set it aside and make it again")
    runs = values.get("runs")
    named = isinstance(runs, list) and all(isinstance(r, dict) and isinstance(r.get("name"), str) for r in runs)
    if not named or not isinstance(values.get("totals"), dict):
        return Finding(
            "fail", "plan", f"{path} is no plan (runs with names, and totals)", "set it aside and make it again"
        )
    return Finding("ok", "plan", f"{path}")
