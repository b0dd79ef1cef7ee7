"""The documents name what exists: links, files, verbs and their flags, fields of the config."""

import contextlib
import functools
import io
import re

import pytest

from moe_jax.cli import main as main_lib
from moe_jax.config import fields
from moe_jax.sweep.launchers import registry
from tests.conftest import ROOT

README_LINES = 120
DOCUMENTS = sorted(
    path
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "tpu_scripts/README.md", "experiments/**/README.md")
    for path in ROOT.glob(pattern)
)
GROUPS = {name.partition(".")[0] for name in fields.field_names() if "." in name}
PLACEHOLDERS = ("x", "x.y")  # --config.x=y
ENDINGS = ("py", "json", "jsonl", "md", "csv", "sh", "yaml", "yml", "html", "png", "toml", "txt")


def text_of(path):
    return path.read_text(encoding="utf-8")


def code_lines(text):
    """The commands of a page: its indented and fenced lines, and its inline code, each on one line."""
    text = re.sub(r" *\\\n\s*", " ", text)
    fenced = [line for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S) for line in block.splitlines()]
    text = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.M | re.S)
    indented = re.findall(r"^    .*$", text, re.M)
    inline = re.findall(r"`([^`]+)`", re.sub(r"^    .*$", "", text, flags=re.M))
    return [*fenced, *indented, *(" ".join(code.split()) for code in inline)]


def commands(text):
    """(verb, flags without values) of each `moe-jax VERB …`; what follows `--` is not ours."""
    for line in code_lines(text):
        for command in re.findall(r"\bmoe-jax ([a-z].*?)(?= -- | && |\||;|#|$|\bmoe-jax )", line):
            verb, *rest = command.split()
            yield verb, re.findall(r"(?<!\S)(--[a-z]\w*)(?![\w.-])", " ".join(rest))


@functools.cache
def flags_of(verb):
    """The flags that a verb's --help shows; submit's with each of its launchers."""
    main = main_lib.module_of(verb).main
    launchers = [[f"--launcher={name}"] for name in registry.MODULES] if verb == "submit" else [[]]
    shown = io.StringIO()
    for launcher in launchers:
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            main([*launcher, "--help"])
    return {"--config", *re.findall(r"--[a-z]\w*", shown.getvalue())}


def config_fields(text):
    """Names that a page gives as fields: config.model.d_model, --config.seed, and `moe.router` in code. Calls of a
    ConfigDict's methods are none."""
    named = re.findall(r"(?<![\w./])(?:--)?config\.([a-z]\w*(?:\.[a-z]\w*)*)(?!\w|\.\w|\()", text)
    for code in code_lines(text):
        named += [f"{group}.{field}" for group, field in re.findall(r"^([a-z_]+)\.([a-z]\w*)", code) if group in GROUPS]
    return {name for name in named if name.rpartition(".")[2] not in ENDINGS and name not in PLACEHOLDERS}


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def document(request):
    return request.param


def test_links_resolve(document):
    targets = re.findall(r"\]\(([^)\s]+)\)", text_of(document))
    relative = [target.partition("#")[0] for target in targets if "://" not in target and target[0] != "#"]
    missing = [target for target in relative if not (document.parent / target).exists()]
    assert not missing, missing


def test_files_exist(document):
    """A path with `*`, `<` or `NAME` in it names no file."""
    found = re.findall(r"(?<![\w./-])(?:moe_jax|configs|tests|docs|tpu_scripts)/[\w./-]+\.\w+", text_of(document))
    missing = [name for name in found if "NAME" not in name and not (ROOT / name).is_file()]
    assert not missing, missing


def test_commands_have_their_verbs_and_flags(document):
    unknown = []
    for verb, flags in commands(text_of(document)):
        if verb not in main_lib.VERBS:
            unknown.append(f"moe-jax {verb}")
        else:
            unknown += [f"moe-jax {verb} {flag}" for flag in flags if flag not in flags_of(verb)]
    assert not unknown, unknown


def test_fields_exist(document):
    unknown = sorted(config_fields(text_of(document)) - set(fields.field_names()))
    assert not unknown, unknown


def test_the_documents_are_read():
    readme = text_of(ROOT / "README.md")
    assert readme.count("\n") <= README_LINES
    assert len(DOCUMENTS) >= 12
    assert ("train", ["--config", "--workdir"]) in list(commands(readme))
    assert {"moe.granularity"} <= config_fields(readme)
    assert "--jobs" in flags_of("submit") and "--jobs" not in flags_of("fit")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`moe-jax fit --law=x\n--nonsense=1`", [("fit", ["--law", "--nonsense"])]),
        ("    moe-jax submit --launcher=xpk -- --their_flag", [("submit", ["--launcher"])]),
        ("    moe-jax fly && moe-jax plan \\\n      --out=x", [("fly", []), ("plan", ["--out"])]),
        ("moe-jax is a name in prose", []),
    ],
)
def test_commands_are_found(text, found):
    assert list(commands(text)) == found
