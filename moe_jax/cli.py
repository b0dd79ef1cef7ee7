"""`moe-jax VERB …`: finds the verb's module and hands over. Imports nothing heavy: `moe-jax --help` is instant."""

import importlib
import sys

from moe_jax import command, errors

VERBS = {
    "prepare": "text -> token store",
    "train": "one run",
    "sweep": "the grid of a config on this machine",
    "plan": "what a grid is and costs before it is trained; fits it a TPU slice",
    "submit": "the grid of a config to a launcher: xpk, queued resources, this machine",
    "status": "which runs are queued, running, done, diverged, failed",
    "evaluate": "loss of a run's checkpoint on a store's held-out part",
    "collect": "results of finished runs -> results.csv",
    "fit": "results.csv -> law.json",
    "predict": "loss of every planned run, with its interval, under a law",
    "optimum": "compute-optimal N, D, G under a law",
    "report": "one page: runs, curves, law, fit against data",
    "doctor": "what would fail here, before jobs are queued",
    "reproduce": "a paper's tables and figures, beside third-party losses and our own runs",
}


def usage() -> str:
    width = max(map(len, VERBS))
    heading = "usage: moe-jax VERB --flags   (moe-jax VERB --help lists a verb's flags)"
    verbs = [f"  {verb:<{width}}  {what}" for verb, what in VERBS.items()]
    return "\n".join([heading, "", "verbs, in the order of the work:", *verbs])


def main() -> None:
    args = sys.argv[1:]
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
        sys.exit(errors.DONE if args else errors.BAD_INPUT)
    if args[0] not in VERBS:
        print(f"moe-jax: there is no verb {args[0]!r}; the verbs are {', '.join(VERBS)}", file=sys.stderr)
        sys.exit(errors.BAD_INPUT)
    command.end(importlib.import_module(f"moe_jax.{args[0]}").main, args[1:])


if __name__ == "__main__":
    main()
