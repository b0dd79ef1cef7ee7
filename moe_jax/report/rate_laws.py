"""Laws of learning rates and batches in a sweep's folder: where they are, and compared with the sweep's runs."""

from etils import epath

from moe_jax import files
from moe_jax.errors import UserError
from moe_jax.report import law_check
from moe_jax.report.law_check import CheckedLaw
from moe_jax.text import one_line

_OTHERS = {"sweep.json", "plan.json", "submission.json", "collected.json", "law.json"}  # some of them are large


def read(folder: epath.Path, results_csv: bytes) -> tuple[dict[str, CheckedLaw], list[str]]:
    """(the laws of other quantities than losses that `fit` wrote to the folder, by their files' names without .json;
    why files among them were left out)."""
    laws, errors = {}, []
    for name in sorted(files.names_in(folder)):
        if not name.endswith(".json") or name in _OTHERS:
            continue
        try:
            if (checked := _check(folder / name, results_csv)) is not None:
                laws[name.removesuffix(".json")] = checked
        except UserError as e:
            errors.append(one_line(str(e)))
    return laws, errors


def _check(path: epath.Path, results_csv: bytes) -> CheckedLaw | None:
    try:
        stored = files.read_json(path)
    except (files.DamagedFile, FileNotFoundError):  # nobody knows whether it was a law
        return None
    is_other = "law" in stored and stored.get("quantity", "loss") != "loss"
    return law_check.check(path, results_csv) if is_other else None
