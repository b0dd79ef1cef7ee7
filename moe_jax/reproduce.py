"""`moe-jax reproduce PAPER`: every table and figure of a paper that can be had, on one page of its own."""

import importlib
import importlib.metadata
import os
import time
from collections.abc import Sequence

from moe_jax import command, errors, papers

_DESCRIPTION = """Sets a paper's printed numbers beside what follows from its coefficients, from third-party losses, and
from your own runs.

  moe-jax reproduce krajewski2024                    reproduced/krajewski2024/page.html and figures
  moe-jax reproduce krajewski2024 --workdir W        with the runs of W/results.csv beside

Third-party losses are read from the folder in MOE_JAX_REFERENCE (default ../shared/reference beside the checkout)."""


def main(argv: Sequence[str]) -> int:
    parser = command.parser("reproduce", _DESCRIPTION)
    parser.add_argument("paper", choices=papers.PAPERS, metavar="PAPER", help=", ".join(papers.PAPERS))
    parser.add_argument("--workdir", help="a sweep of ours, whose results.csv is set beside the paper")
    parser.add_argument("--out", help="a folder (default reproduced/PAPER, with --workdir W/reproduced/PAPER)")
    flags = parser.parse_args(argv)

    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # fits need float64 and no accelerator
    from etils import epath

    from moe_jax import figures, files, html
    from moe_jax.html import h
    from moe_jax.papers.item import Drawing
    from moe_jax.papers.sources import Sources, finished, reference_folder

    paper = importlib.import_module(f"moe_jax.papers.{flags.paper}")
    ours = finished(flags.workdir, paper.NEEDS) if flags.workdir else None
    sources = Sources(flags.paper, reference_folder(), ours, flags.workdir or "our runs")
    folder = epath.Path(flags.out or os.path.join(flags.workdir or "", "reproduced", flags.paper))
    (folder / "figures").mkdir(parents=True, exist_ok=True)

    said, items = paper.reproduce(sources)
    body, links, drawn = [], [], 0
    for number, item in enumerate(items):
        print(item.title, flush=True)  # made one by one: some take seconds
        body.append(h("h2", item.title, id=f"item{number}"))
        links.append(h("a", item.title.partition(":")[0], href=f"#item{number}"))
        for part in item.content:
            if not isinstance(part, Drawing):
                body.append(part)
                continue
            drawn += 1
            files.write_atomic(folder / "figures" / f"{part.name}.png", figures.to_bytes(part.figure, "png"))
            body.append(html.figure(figures.to_bytes(part.figure, "svg"), part.caption, item.title))
    made = f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())} · moe_jax {importlib.metadata.version('moe_jax')}"
    head = [h("h1", paper.TITLE), h("div", f"{sources.printed['source']} · {made}", class_="soft"), h("nav", *links)]
    page = html.page(f"{flags.paper}, reproduced", *head, html.bullets(said), *body)
    files.write_atomic(folder / "page.html", page.encode())
    for sentence in said:
        print(f"- {sentence}")
    print(f"page: {folder / 'page.html'} ({drawn} figures, also in {folder / 'figures'})")
    return errors.DONE


if __name__ == "__main__":
    command.end(main)
