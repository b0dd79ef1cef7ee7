"""Templates -> pages. Values are escaped, an undefined name is an error, and a page needs no other file."""

import functools
from typing import Any

import jinja2


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("moe_jax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> str:
    """A file of report/templates, filled in."""
    return _environment().get_template(template).render(**values)
