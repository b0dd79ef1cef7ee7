"""`moe-jax inspect`: which experts a run's tokens choose -> routing.json."""

from collections.abc import Sequence

from moe_jax.cli import command
from moe_jax.errors import UserError

DESCRIPTION = """Which experts the tokens of held-out windows choose, with a run's newest checkpoint and with its
parameters before the first step: load of the experts, entropy of the router, share dropped at the capacity of training,
pairs of experts that go together, the tokens of each expert. Writes W/runs/NAME/routing.json, which `report` draws."""


def main(argv: Sequence[str]) -> None:
    parser = command.parser("inspect", DESCRIPTION)
    parser.add_argument("--workdir", required=True, metavar="W/runs/NAME", help="folder or gs:// of the run")
    parser.add_argument("--store", metavar="S", help="folder or gs:// of the token store (default: the run's)")
    parser.add_argument("--sequences", type=int, metavar="N", help="held-out windows (default: the config's)")
    flags = parser.parse_args(argv)
    if flags.sequences is not None and flags.sequences < 1:
        raise UserError(f"--sequences={flags.sequences}: must be above 0")

    from moe_jax.cli import routing_tables, tables
    from moe_jax.evaluation.routing import inspection
    from moe_jax.training.compile_cache import use_compilation_cache

    use_compilation_cache()
    found = inspection.inspect_run(flags.workdir, flags.store, flags.sequences)
    path = inspection.write(flags.workdir, found)
    print(
        f"{found.name}: step {found.step:,}, {found.n_experts} experts a layer, {found.tokens:,} tokens of "
        f"{found.sequences:,} windows of {found.store['path']}"
    )
    for title, table in routing_tables.shown(found):
        print(f"\n{title}")
        tables.show(table)
    print(f"\n{path}")
