"""`moe-jax doctor`: what would fail, before 300 jobs are queued."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moe_jax import command, configfile, errors, tables

if TYPE_CHECKING:
    from moe_jax.checks import Finding

DESCRIPTION = """Looks at this machine and, where they are given, at a config, a workdir and a launcher's clients, and
says what would fail and what to do. It changes nothing: in the workdir it writes a small file and deletes it again. It
needs no network but for a workdir or a store on gs://. Ends with 1 if something would fail.

  moe-jax doctor
  moe-jax doctor --config=configs/krajewski2024.py:table3 --workdir=gs://bucket/k24 --launcher=xpk"""
LAUNCHERS = ("local", "xpk", "queued-resources")
_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


def main(argv: Sequence[str]) -> int:
    config_args, others = configfile.split(argv)
    parser = command.parser("doctor", DESCRIPTION)
    parser.add_argument("--workdir", metavar="W", help="the sweep's folder or gs://, which need not exist yet")
    parser.add_argument("--launcher", choices=LAUNCHERS, help="whose clients are needed; without it, all are warned of")
    parser.epilog = configfile.HELP
    flags = parser.parse_args(others)

    from moe_jax.checks import clients, machine, sweep, worst

    found = [*machine.findings(flags.launcher)]
    found += sweep.findings(config_args, flags.workdir, flags.launcher)
    if flags.launcher != "local":
        found += clients.findings(flags.launcher)
    _show(found)
    numbers = {state: sum(f.state == state for f in found) for state in _STYLES}
    print(", ".join(f"{n} {state}" for state, n in numbers.items()))
    return errors.FAILED if worst(found) == "fail" else errors.DONE


def _show(found: Sequence["Finding"]) -> None:
    """A line a finding, and under it what to do; wrapped by a terminal, never cut."""
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    width = max(len(f.what) for f in found)
    for f in found:
        says = tables.one_line(f.says)
        console.print(Text.assemble((f"{f.state:<4}", _STYLES[f.state]), f"  {f.what:<{width}}  {says}"))
        if f.do:
            console.print(Text(f"{'':<{width + 6}}  → {tables.one_line(f.do)}"))


if __name__ == "__main__":
    command.end(main)
