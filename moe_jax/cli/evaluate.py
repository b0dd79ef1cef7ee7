"""`moe-jax evaluate`: loss of a run's newest checkpoint on the held-out part of a store -> a file of its own."""

from collections.abc import Sequence

from moe_jax.cli import command
from moe_jax.errors import UserError

DESCRIPTION = """Loss and bits per byte of a run's newest checkpoint on the held-out part of a token store: the run's
own, or another with the same vocabulary. Tokens reach their experts as eval.dispatch says, as a rule without dropping.
From the same parameters and windows it is the same to 1e-6 on any devices. Writes W/runs/NAME/evaluations/store-S.json;
collect makes it the columns eval_loss_S and bits_per_byte_S."""


def main(argv: Sequence[str]) -> None:
    parser = command.parser("evaluate", DESCRIPTION)
    parser.add_argument("--workdir", required=True, metavar="W/runs/NAME", help="folder or gs:// of the run")
    parser.add_argument("--store", metavar="S", help="folder or gs:// of the token store (default: the run's)")
    parser.add_argument(
        "--sequences", type=int, metavar="N",
        help="held-out windows, drawn evenly over the held-out part (default: the config's, or all that there are)",
    )  # fmt: skip
    parser.add_argument("--name", metavar="S", help="of the store, in columns (default: made of its folder's name)")
    flags = parser.parse_args(argv)
    if flags.sequences is not None and flags.sequences < 1:
        raise UserError(f"--sequences={flags.sequences}: must be above 0")

    from etils import epath

    from moe_jax.evaluation import on_store
    from moe_jax.sweep.rundir import RunDir
    from moe_jax.training.compile_cache import use_compilation_cache

    use_compilation_cache()
    found = on_store.evaluate_run(flags.workdir, flags.store, flags.sequences, flags.name)
    path = RunDir(epath.Path(flags.workdir)).write_evaluation(found)
    print(
        f"{found.name}: step {found.step:,}, eval loss {found.values['eval_loss']:.4f} nats/token, "
        f"{found.values['bits_per_byte']:.4f} bits/byte over {found.about['sequences']:,} windows of "
        f"{found.about['store']}; {path}"
    )
