"""Forms declared in a user's own Python file: `--law my_law.py:NAME` runs the file, then looks for NAME.

A law.json is data and never makes a file run: it records the file's name and SHA-256, and the user names the file again
(`--law my_law.py:law.json`)."""

import hashlib
import types
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from moe_jax import errors
from moe_jax.laws import forms
from moe_jax.laws.forms import Form, SourceFile


def declare(text: str) -> str:
    """Runs the file of "FILE.py:REST", which registers its forms, and returns REST; another text is returned as it is.

    Raises UserError where the file is missing, fails, declares nothing, or declares a name that is taken."""
    file, colon, rest = text.partition(".py:")
    if not colon:
        return text
    path = Path(f"{file}.py")
    if not path.is_file():
        raise errors.UserError(f"--law {text}: there is no file {path}")
    _run(path, path.read_bytes())
    return rest


def find_form(text: str) -> Form:
    """A form by its name, or by "FILE.py:NAME". Raises UserError where there is none."""
    name = declare(text)
    if name != text:
        file = str(Path(text.removesuffix(f":{name}")))
        declared = [form.name for form in forms.FORMS.values() if form.file and form.file.path == file]
        if name not in declared:
            raise errors.UserError(f"{file} declares no law {name!r}; it declares {', '.join(declared)}")
    return forms.get(name)


def form_of_law(stored: Mapping, path) -> Form:
    """The form of a law.json. Raises UserError where it is not declared, or its file has changed since the fit."""
    name, declared_in = stored["law"], stored.get("declared_in")
    if declared_in is None:
        return forms.get(name)
    file, sha256 = declared_in["file"], declared_in["sha256"]
    form = forms.FORMS.get(name)
    if form is None or form.file is None:
        raise errors.UserError(
            f"{path} was fitted with the law {name!r} of {file} (SHA-256 {sha256[:12]}…), which is not declared here;"
            f" name the file as well: --law {file}:{path}"
        )
    if form.file.sha256 != sha256:
        raise errors.UserError(
            f"{form.file.path} has changed since {path} was fitted with it (SHA-256 {sha256[:12]}… then,"
            f" {form.file.sha256[:12]}… now); fit again"
        )
    return form


def _run(path: Path, content: bytes) -> None:
    file = SourceFile(str(path), hashlib.sha256(content).hexdigest())
    if any(form.file == file for form in forms.FORMS.values()):
        return  # run before, with this content
    before = dict(forms.FORMS)
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)  # noqa: S102 (the file that the user named)
        new = {name: form for name, form in forms.FORMS.items() if before.get(name) is not form}
        _check(path, new, before)
    except (Exception, SystemExit) as e:
        forms.FORMS.clear()
        forms.FORMS.update(before)
        if isinstance(e, errors.UserError):
            raise
        raise errors.UserError(f"--law {path}: cannot be read: {type(e).__name__}: {e}") from e
    forms.FORMS.update({name: replace(form, file=file) for name, form in new.items()})


def _check(path: Path, new: Mapping[str, Form], before: Mapping[str, Form]) -> None:
    if not new:
        raise errors.UserError(f"--law {path}: declares no law; put @laws.declare(…) above its formula")
    for name in new:
        if name in before and (before[name].file is None or before[name].file.path != str(path)):
            raise errors.UserError(f"--law {path}: there is a law {name!r} already; give it another name")
