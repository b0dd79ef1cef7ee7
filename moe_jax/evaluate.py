"""`moe-jax evaluate`: loss of a run's newest checkpoint on the held-out part of a store -> evaluation.json."""

import dataclasses
from collections.abc import Sequence

from moe_jax import command
from moe_jax.errors import UserError

DESCRIPTION = """Loss and bits per byte of a run's newest checkpoint on the held-out part of a token store: the run's
own, or another with the same vocabulary. From the same parameters and windows it is the same to 1e-6 on any devices.
Writes W/runs/NAME/evaluation.json."""


def main(argv: Sequence[str]) -> None:
    parser = command.parser("evaluate", DESCRIPTION)
    parser.add_argument("--workdir", required=True, metavar="W/runs/NAME", help="folder or gs:// of the run")
    parser.add_argument("--store", metavar="S", help="folder or gs:// of the token store (default: the run's)")
    parser.add_argument(
        "--sequences", type=int, metavar="N", help="held-out windows, in store order (default: the config's)"
    )
    flags = parser.parse_args(argv)
    if flags.sequences is not None and flags.sequences < 1:
        raise UserError(f"--sequences={flags.sequences}: must be above 0")

    from etils import epath

    from moe_jax import evaluation, files, loading, provenance, windows
    from moe_jax.data.store import open_store
    from moe_jax.train import use_compilation_cache

    run = loading.run_of(flags.workdir)
    config = run.config
    store = open_store(flags.store or run.store_path)
    if store.info.vocabulary != run.vocabulary:
        raise UserError(f"--store={store.path}: has another vocabulary than the store that the run was trained on")
    if flags.store is None and store.info.sha256 != run.store_sha256:
        raise UserError(f"{store.path}: is another store than the one the run was trained on; name it with --store")
    if flags.sequences is not None:
        config = dataclasses.replace(config, eval=dataclasses.replace(config.eval, sequences=flags.sequences))
    held_out = windows.held_out(config, store)

    use_compilation_cache()
    restored = loading.restore(flags.workdir)
    values = evaluation.evaluate(restored.trainer, restored.state.weights, held_out)
    path = epath.Path(flags.workdir) / "evaluation.json"
    written = {
        "name": run.name,
        "step": restored.step,
        "tokens": restored.step * config.batch_tokens,
        "store": {"path": store.path, "sha256": store.info.sha256},
        "sequences": held_out.sequences,
        **values,
        **provenance.devices(),
    }
    files.write_json(path, written)
    print(
        f"{run.name}: step {restored.step:,}, eval loss {values['eval_loss']:.4f} nats/token, "
        f"{values['bits_per_byte']:.4f} bits/byte over {held_out.sequences:,} windows of {store.path}; {path}"
    )


if __name__ == "__main__":
    command.end(main)
