"""`moe-jax report --workdir W`: what a sweep shows, on one self-contained page -> W/report.html."""

from collections.abc import Sequence

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
    args = parser.parse_args(argv)
    work = Workdir(args.workdir)
    data = read(work)
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
