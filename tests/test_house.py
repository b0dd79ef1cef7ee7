"""The rules of the house (CONTRIBUTING.md): sizes of modules and functions, and what says what it is for."""

import ast
import statistics

from tests.conftest import ROOT

MODULE_LINES, MEDIAN_LINES, FUNCTION_LINES, LOOSE_MODULES = 450, 200, 60, 10
LONG = "long because"  # in the docstring of a function that has a reason to be longer

PACKAGE = ROOT / "moe_jax"
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
MODULES = {name: ast.parse(text) for name, text in SOURCES.items()}
LINES = {name: text.count("\n") for name, text in SOURCES.items()}


def functions():
    """(where, definition) of every function and method, also of nested ones."""
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{name}:{node.lineno} {node.name}", node


def public_definitions():
    """(where, definition) of the functions and classes at a module's top whose names have no underscore."""
    for name, tree in MODULES.items():
        for node in tree.body:
            named = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            if named and not node.name.startswith("_"):
                yield f"{name}:{node.lineno} {node.name}", node


def check_none(offenders):
    offenders = sorted(offenders)
    assert not offenders, f"{len(offenders)}:\n" + "\n".join(offenders)


def test_no_module_is_long():
    check_none(f"{name}: {n} lines" for name, n in LINES.items() if n > MODULE_LINES)


def test_most_modules_are_short():
    assert statistics.median(LINES.values()) <= MEDIAN_LINES


def test_a_long_function_says_why():
    check_none(
        f"{where}: {node.end_lineno - node.lineno + 1} lines"
        for where, node in functions()
        if node.end_lineno - node.lineno >= FUNCTION_LINES and LONG not in (ast.get_docstring(node) or "")
    )


def test_few_modules_lie_loose():
    loose = sorted(name for name in SOURCES if "/" not in name and not name.startswith("__"))
    assert len(loose) <= LOOSE_MODULES, loose
    assert {folder.name for folder in PACKAGE.iterdir() if list(folder.rglob("*.py"))} == {
        name.partition("/")[0] for name in SOURCES if name.endswith("/__init__.py")
    }, "a folder without __init__.py is left out of the wheel"


def says_elsewhere(where, node):
    """cli/command.py says what a verb's main is; `declare` states the formula and the source of a law's form."""
    declared = any("declare" in ast.unparse(decorator) for decorator in node.decorator_list)
    return declared or (where.startswith("cli/") and node.name == "main")


def test_what_is_public_has_a_docstring():
    check_none(
        where for where, node in public_definitions() if not ast.get_docstring(node) and not says_elsewhere(where, node)
    )


def test_every_module_and_every_package_has_a_docstring():
    """A package's is that of its __init__.py."""
    check_none(name for name, tree in MODULES.items() if not ast.get_docstring(tree))
