"""Elements and templates: whatever text they are given stays text."""

import jinja2
import pytest

from moe_jax.report.elements import Badge, Bullets, Code, EmbeddedFigure, Paragraph, Shaded, Table
from moe_jax.report.formula import markup
from moe_jax.report.render import render
from tests.cli.test_report import EVIL, Reader


def test_every_element_escapes_what_it_is_given():
    cells = [EVIL, Code(EVIL), Badge(EVIL, EVIL, EVIL), Shaded(EVIL, 0.5)]
    content = [
        Table([f">{EVIL}", "b", "c", "d"], [cells], caption=EVIL), Paragraph(EVIL), Bullets([EVIL]),
        EmbeddedFigure(b"<svg/>", EVIL, EVIL),
    ]  # fmt: skip
    items = {EVIL: {"title": EVIL, "content": content}}
    given = {"title": EVIL, "heading": EVIL, "provenance": EVIL, "links": {EVIL: EVIL}, "sentences": [EVIL]}
    shown = Reader(render("paper.html", **given, items=items))
    assert shown.tags.count("td") == 4 and shown.tags.count("img") == 1 and "script" not in shown.tags
    assert shown.text.count("alert(1)") == 16


def test_numbers_stand_right_and_rows_are_as_long_as_the_headings():
    made = render("paper.html", title="", heading="", provenance="", links={}, sentences=[],
                  items={"x": {"title": "", "content": [Table(["a", ">b"], [["x", "1"]])]}})  # fmt: skip
    assert "<td>x</td>" in made and '<td class="n">1</td>' in made and '<th class="n">b</th>' in made
    with pytest.raises(ValueError, match="a row of 1 cells under 2 headings"):
        Table(["a", "b"], [["one"]])


def test_a_template_that_names_what_is_not_there_fails():
    with pytest.raises(jinja2.UndefinedError, match="heading"):
        render("paper.html", title="")


def test_a_formula_is_set_with_its_exponents():
    got = markup("c + (g * G^-gamma + a) * N^-alpha + b * D^(-beta + 1)")
    assert got == "c + (g·G<sup>−γ</sup> + a)·N<sup>−α</sup> + b·D<sup>−β + 1</sup>"
    assert markup("a < b") == "a &lt; b"
