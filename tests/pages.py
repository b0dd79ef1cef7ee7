"""Pages and figures as a reader meets them: well-formed, readable, and nothing over anything else."""

import html.parser
import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg

from moe_jax.report.page import page
from moe_jax.report.reading import read


class Reader(html.parser.HTMLParser):
    """Checks that elements are closed in order; collects tags, links, texts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.links, self.texts, self.tables = [], [], [], [], 0
        self.feed(text)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "srcset", "data")]
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def read_page(work):
    """The page without its figures, which take most of the time."""
    return Reader(page(read(work), {}))


def assert_nothing_overlaps(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [ax.get_tightbbox(renderer) for ax in figure.axes]
    boxes += [legend.get_window_extent(renderer) for legend in figure.legends]
    boxes += [text.get_window_extent(renderer) for text in (figure._supxlabel, figure._supylabel) if text is not None]
    for a, b in itertools.combinations(boxes, 2):
        overlap = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(overlap) < 2, f"{a} and {b} overlap"
    for ax in figure.axes:
        labels = [t.get_window_extent(renderer) for t in ax.get_xticklabels() if t.get_text() and t.get_visible()]
        inside = sorted(
            (b for b in labels if ax.bbox.x0 - 1 <= (b.x0 + b.x1) / 2 <= ax.bbox.x1 + 1), key=lambda b: b.x0
        )
        assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(inside)), [t.get_text() for t in ax.get_xticklabels()]
    width, height = figure.get_size_inches() * figure.dpi
    for box in boxes:
        assert box.x0 >= -1 and box.x1 <= width + 1 and box.y0 >= -1 and box.y1 <= height + 1, "cut off"
