"""`moe-jax VERB …`: imports the verb's module and calls it. Nothing heavy is imported: `moe-jax --help` is instant."""

import difflib
import importlib
import keyword
import sys
import types
from collections.abc import Sequence

from moe_jax import errors
from moe_jax.cli import command, malloc

VERBS = {
    "prepare": "make a token store from text",
    "train": "train one run",
    "sweep": "train the grid of a config on this machine",
    "plan": "what a grid is and costs; whether it fits on a TPU slice",
    "submit": "submit the grid of a config to xpk, to queued resources, or to this machine",
    "status": "show which runs are queued, running, done, diverged or failed",
    "evaluate": "evaluate a run's checkpoint on a store's held-out part or on tasks",
    "export": "write a run's checkpoint as a folder that Hugging Face's transformers loads",
    "import": "make a folder of transformers one that evaluate, export and train.init_from take",
    "generate": "continue a prompt with a run's checkpoint",
    "inspect": "show which experts a run's tokens choose, before training and after",
    "collect": "write the results of finished runs to results.csv",
    "fit": "fit a scaling law to results.csv, write law.json",
    "isoflop": "find the best size of each budget of FLOPs, without a formula",
    "predict": "predict the loss of every planned run by a law, with an interval",
    "optimum": "find the compute-optimal N, D, G of a law",
    "report": "make a page: runs, curves, law, fit against data",
    "reseal": "accept a result, plan or law file that was changed by hand",
    "doctor": "check what would fail, before jobs are queued",
    "reproduce": "make a paper's tables and figures, beside third-party losses and our own runs",
}


def usage() -> str:
    """What `moe-jax --help` prints."""
    width = max(map(len, VERBS))
    heading = "usage: moe-jax VERB --flags   (moe-jax VERB --help lists a verb's flags; moe-jax --version)"
    verbs = [f"  {verb:<{width}}  {what}" for verb, what in VERBS.items()]
    return "\n".join([heading, "", "verbs, in the order of the work:", *verbs])


def version() -> str:
    """What `moe-jax --version` prints: the version, and the commit where there is one."""
    import moe_jax
    from moe_jax import provenance

    commit = provenance.git_commit()
    return f"moe_jax {moe_jax.__version__}" + (f" (commit {commit})" if commit else "")


def module_of(verb: str) -> types.ModuleType:
    """A verb's module; `import` is a word of Python, so that of this verb is import_."""
    return importlib.import_module(f"moe_jax.cli.{verb}{'_' if keyword.iskeyword(verb) else ''}")


def main() -> None:
    if sys.argv[1:2] == ["train"]:
        malloc.start_again()
    command.prepare_streams()
    command.end(verb)


def verb(argv: Sequence[str]) -> int | None:
    """Imports a verb and calls it, within the frame of `command`: Ctrl-C may come while jax is imported."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return errors.DONE if argv else errors.BAD_INPUT
    if argv[0] in ("-V", "--version", "version"):
        print(version())
        return errors.DONE
    if argv[0] not in VERBS:
        near = difflib.get_close_matches(argv[0], VERBS, n=1)
        meant = f", did you mean {near[0]}?" if near else ""
        raise errors.UserError(f"there is no verb {argv[0]!r}{meant}; the verbs are {', '.join(VERBS)}")
    return module_of(argv[0]).main(argv[1:])
