"""`moe-jax doctor`: checks what would fail, before 300 jobs are queued."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moe_jax import errors, text
from moe_jax.cli import command, rules
from moe_jax.config import config_file
from moe_jax.sweep.launchers import registry

if TYPE_CHECKING:
    from moe_jax.cli.checks import Finding

DESCRIPTION = """Checks this machine and, where they are given, a config, a workdir and a launcher's clients. It says
what would fail and what to do. It changes nothing; in the workdir it writes a small file and deletes it again. It needs
the network only for a workdir or a store on gs://. Exit code 1: something would fail.

  moe-jax doctor
  moe-jax doctor --config=configs/krajewski2024.py:table3 --workdir=gs://bucket/k24 --launcher=xpk"""
_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


def main(argv: Sequence[str]) -> int:
    config_args, others = config_file.split(argv)
    parser = command.parser("doctor", DESCRIPTION)
    parser.add_argument("--workdir", metavar="W", help="the sweep's folder or gs://, which need not exist yet")
    parser.add_argument(
        "--launcher", choices=tuple(registry.MODULES),
        help="check its clients; without it, a missing client is only a warning",
    )  # fmt: skip
    rules.add_flags(parser)
    parser.epilog = config_file.HELP
    flags = parser.parse_args(others)

    from moe_jax.cli.checks import clients, machine, sweep, worst

    found = [*machine.findings(flags.launcher)]
    found += sweep.findings(config_args, flags.workdir, flags.launcher, lambda args: rules.load(args, flags))
    if flags.launcher != "local":
        found += clients.findings(flags.launcher)
    _show(found)
    numbers = {state: sum(f.state == state for f in found) for state in _STYLES}
    print(", ".join(f"{n} {state}" for state, n in numbers.items()))
    return errors.FAILED if worst(found) == "fail" else errors.DONE


def _show(found: Sequence["Finding"]) -> None:
    """Prints one line a finding, and what to do below it. The terminal wraps lines; nothing is truncated."""
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    width = max(len(f.what) for f in found)
    for f in found:
        says = text.one_line(f.says)
        console.print(Text.assemble((f"{f.state:<4}", _STYLES[f.state]), f"  {f.what:<{width}}  {says}"))
        if f.do:
            console.print(Text(f"{'':<{width + 6}}  → {text.one_line(f.do)}"))
