"""`moe-jax report --workdir W`: what a sweep shows, on one self-contained page -> W/report.html."""

import os
from collections.abc import Sequence

from etils import epath

from moe_jax import errors, files
from moe_jax.cli import command
from moe_jax.report.drawing import save
from moe_jax.report.page import drawings, page
from moe_jax.report.reading import read
from moe_jax.report.sections import summary
from moe_jax.sweep.workdir import Workdir


def main(argv: Sequence[str]) -> int:
    parser = command.parser("report", __doc__)
    parser.add_argument("--workdir", required=True, help="the sweep's folder, local or gs://")
    law = "the law.json to show (default W/law.json); FILE.py: before it for a law of your own"
    parser.add_argument("--law", metavar="LAW", help=law)
    args = parser.parse_args(argv)
    work = Workdir(args.workdir)
    data = read(work, _law_file(args.law) if args.law else None)
    folder = work.path / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    embedded = {name: save(drawing, folder) for name, drawing in drawings(data).items()}
    path = work.path / "report.html"
    files.write_atomic(path, page(data, embedded).encode())
    for sentence in summary.sentences(data.snapshot, data.rows, data.grid, data.law, data.predictions, data.routings):
        print(f"- {sentence}")
    print(f"report: {path} ({len(embedded)} figures, also in {folder})")
    if data.law_error is not None:
        raise errors.WorkFailed(f"the report is without a law: {data.law_error}")
    if data.predictions_error is not None:
        raise errors.WorkFailed(f"the report is without predictions: {data.predictions_error}")
    return errors.DONE


def _law_file(asked: str) -> epath.Path:
    """The law.json of --law; runs the file of a law of one's own. Raises UserError where either is not there."""
    if ".py:" in asked:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a law needs no accelerator
        from moe_jax.laws import user_file

        asked = user_file.declare(asked)
    path = epath.Path(asked)
    if not asked.endswith(".json") or not path.exists():
        raise errors.UserError(f"--law is {asked!r}, must be a law.json that `moe-jax fit` wrote")
    return path
