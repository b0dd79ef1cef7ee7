"""A page in one file: elements that escape what they are given, tables, figures inside the page, one style sheet.

page("A title", h("h1", "A title"), h("p", "x < y"))      # x &lt; y
"""

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Any


class Html(str):
    """Text that is HTML already; any other text is escaped where it enters an element."""


_VOID = ("img", "meta", "br")

_STYLE = """
:root { --ink: #1c2733; --soft: #5b6876; --line: #dde3e9; --paper: #fff; --tint: #f4f7fa; --accent: #1f5fa8; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1140px; padding: 2.2rem 1.4rem 4rem; background: var(--paper); color: var(--ink);
       font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-top: .9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
p, ul { margin: .5rem 0; max-width: 78ch; }
li { margin: .25rem 0; }
code { font: .87em/1.5 ui-monospace, "SFMono-Regular", Menlo, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.soft, figcaption, caption { color: var(--soft); }
nav { margin: .9rem 0 0; } nav a { margin-right: 1.1rem; color: var(--accent); text-decoration: none; }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1.2rem 0; }
.tile { flex: 1 1 150px; background: var(--tint); border-radius: 8px; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.35rem; line-height: 1.3; } .tile span { color: var(--soft); font-size: .87rem; }
.scroll { overflow-x: auto; }
.tall { max-height: 34rem; overflow-y: auto; border-bottom: 1px solid var(--line); }
.tall thead th { position: sticky; top: 0; background: var(--paper); }
table { border-collapse: collapse; margin: .7rem 0; font-size: .87rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .28rem .6rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { font-weight: 600; } th.n, td.n { text-align: right; } td.wrap { white-space: normal; overflow-wrap: anywhere; }
figure { margin: 1rem 0 1.6rem; } figure img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .87rem; max-width: 90ch; margin-top: .3rem; }
.note { border-left: 4px solid #c98a12; background: #fdf6e7; padding: .6rem .9rem; margin: .8rem 0; max-width: 84ch; }
.state { border-radius: 4px; padding: .05rem .45rem; background: #e8edf2; }
.done { background: #dff2e3; } .running { background: #dcecfb; } .stale { background: #fbf0d3; }
.failed, .diverged, .damaged, .other { background: #fbe0dd; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.1rem; margin: .6rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media print { body { max-width: none; } .tall { max-height: none; } }
"""


def h(tag: str, *children: Any, **attributes: Any) -> Html:
    """One element; text children and attribute values are escaped, `class_` is class, None attributes are left out."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Html(f"<{tag}{given}>")
    return Html(f"<{tag}{given}>{join(children)}</{tag}>")


def join(children: Iterable[Any]) -> Html:
    """Children one after the other; None is nothing."""
    return Html("".join(c if isinstance(c, Html) else html.escape(str(c)) for c in children if c is not None))


def table(
    headings: Sequence[str], rows: Sequence[Sequence[Any]], *, caption: str | None = None, tall: bool = False
) -> Html:
    """A table. A heading that starts with `>` is a column of numbers. Cells are texts or elements."""
    numbers = ["n" if heading.startswith(">") else None for heading in headings]
    head = h("tr", *(h("th", t.removeprefix(">"), class_=c) for t, c in zip(headings, numbers, strict=True)))

    def cell(value: Any, class_: str | None) -> Html:
        return value if isinstance(value, Html) and value.startswith("<td") else h("td", value, class_=class_)

    body = [h("tr", *(cell(v, c) for v, c in zip(row, numbers, strict=True))) for row in rows]
    made = h("table", h("caption", caption) if caption else None, h("thead", head), h("tbody", *body))
    return h("div", made, class_="scroll tall" if tall else "scroll")


def figure(svg: bytes, caption: str, alt: str) -> Html:
    """A picture inside the page. As an image, not as elements: several SVGs in one page would share their ids."""
    source = "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    return h("figure", h("img", src=source, alt=alt), h("figcaption", caption))


def bullets(sentences: Iterable[Any]) -> Html | None:
    items = [h("li", sentence) for sentence in sentences]
    return h("ul", *items) if items else None


def page(title: str, *body: Any) -> str:
    """The whole document. Its policy forbids the page to load or run anything, whatever stands in it."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = h(
        "head",
        h("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("title", title),
        Html(f"<style>{_STYLE}</style>"),
    )
    return f"<!doctype html>\n{h('html', head, h('body', *body), lang='en')}\n"
