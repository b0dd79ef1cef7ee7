"""Formulas and the names of coefficients as they are printed: Greek letters, raised exponents."""

import re

from markupsafe import Markup, escape

_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "omega": "ω", "zeta": "ζ", "lambda": "λ"}


def greek(name: str) -> str:
    """α for alpha; other names as they are."""
    return _GREEK.get(name, name)


def markup(text: str) -> Markup:
    """`g * G^-gamma` as HTML: g·G with −γ raised."""
    raised = re.sub(r"\^(?:\(([^()]*)\)|(-?\w+))", lambda m: f"<sup>{m[1] or m[2]}</sup>", str(escape(text)))
    lettered = re.sub(r"[a-z]+", lambda m: greek(m[0]), raised.replace(" * ", "·"))
    return Markup(lettered.replace("-", "−"))  # noqa: S704 (escaped above)
