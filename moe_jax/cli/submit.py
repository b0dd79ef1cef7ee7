"""`moe-jax submit`: submits the jobs of a config's grid to a launcher."""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moe_jax import errors
from moe_jax.cli import command, rules
from moe_jax.config import config_file
from moe_jax.errors import Stopped, UserError
from moe_jax.sweep.launchers import registry, restarts
from moe_jax.text import count, one_line

if TYPE_CHECKING:
    from moe_jax.config.config_file import ConfigFile
    from moe_jax.sweep.launchers.launcher import Launcher
    from moe_jax.sweep.manifest import Manifest
    from moe_jax.sweep.select_jobs import Selection
    from moe_jax.sweep.workdir import Workdir

DESCRIPTION = """Submits every run of a config's grid that has no result yet. A run is one job; so is a trunk with its
branches. Runs that are done, diverged or submitted already are left alone, so the same command again submits what is
missing. It prints what the jobs cost and asks before it submits them."""


def main(argv: Sequence[str]) -> int:
    own, extra = _split_at_dashes(argv)
    config_args, others = config_file.split(own)
    flags = _parse(others)
    if flags.max_restarts < 0:
        raise UserError(f"--max_restarts={flags.max_restarts}: must not be negative")
    file = rules.load(config_args, flags)

    from moe_jax import files
    from moe_jax.sweep.workdir import Workdir

    workdir = Workdir(flags.workdir)
    launcher = registry.launcher_module(flags.launcher).make(flags, str(files.absolute(workdir.path)), extra)
    return _submit(file, workdir, launcher, flags)


def _split_at_dashes(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the arguments before `--`, those after it, which are passed on to the launcher's client)."""
    argv = list(argv)
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at], argv[at + 1 :]


def _parse(args: Sequence[str]) -> argparse.Namespace:
    """The flags of submit and of the launcher that they name. A flag of another launcher is refused as unknown."""
    choice = argparse.ArgumentParser("moe-jax submit", add_help=False, allow_abbrev=False)
    choice.add_argument(
        "--launcher", choices=tuple(registry.MODULES), help="where the jobs run; give it with --help to see its flags"
    )
    name = choice.parse_known_args(args)[0].launcher
    if name is None and not {"-h", "--help"} & set(args):
        raise UserError(f"--launcher: give one of {', '.join(registry.MODULES)}")
    parser = command.parser("submit", DESCRIPTION, parents=[choice])
    _add_common_flags(parser)
    rules.add_flags(parser)
    if name is not None:
        group = parser.add_argument_group(name, "arguments after -- are passed on to its client")
        registry.launcher_module(name).add_flags(group)
    parser.epilog = config_file.HELP
    return parser.parse_args(args)


def _add_common_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, metavar="W", help="the sweep's folder or gs://")
    parser.add_argument("--dry_run", action="store_true", help="print the commands for a shell; write nothing")
    parser.add_argument("--yes", action="store_true", help="submit without asking")
    parser.add_argument(
        "--retry_failed", action="store_true", help="also submit jobs that failed or are stale (no heartbeat)"
    )
    parser.add_argument(
        "--retry", action="append", default=[], metavar="JOB", help="submit this job again, whatever its state"
    )
    parser.add_argument(
        "--rerun", action="append", default=[], metavar="RUN", help="move this run's result aside and train it again"
    )
    parser.add_argument(
        "--max_restarts", type=int, default=restarts.DEFAULT_LIMIT, metavar="N",
        help="of a job that crashed or was stopped; one that was refused or diverged is not restarted "
        f"(default {restarts.DEFAULT_LIMIT})",
    )  # fmt: skip


def _submit(file: "ConfigFile", workdir: "Workdir", launcher: "Launcher", flags: argparse.Namespace) -> int:
    from moe_jax.cli.sweep import conclude
    from moe_jax.sweep import from_config
    from moe_jax.sweep.select_jobs import LauncherView, RetryRequest, select_jobs
    from moe_jax.sweep.submission_records import SubmissionRecords

    say = _say_as_comment if flags.dry_run else print
    _check_paths(launcher, file.config.data.store, flags.dry_run)
    manifest, _, store = from_config.enter(
        file, workdir, whole_grid=True, writes=False, store_required=not flags.dry_run
    )
    if store is None:
        say(f"there is no token store at {file.config.data.store} yet; make it with: moe-jax prepare {file.flags}")
    if not flags.dry_run:
        launcher.check_client()
    records = SubmissionRecords(workdir)
    request = RetryRequest(flags.retry_failed, tuple(flags.retry), tuple(flags.rerun))
    view = LauncherView(launcher.address, waits_for_running=launcher.runs_here)
    if not flags.dry_run:
        view = LauncherView(launcher.address, launcher.find_lost, launcher.runs_here)
    selection = select_jobs(workdir, manifest, records.newest(), request, view)
    for sentence in [*file.remarks, *selection.left_alone, *selection.damaged]:
        say(sentence)
    if not selection.submissions:
        say("there is nothing to " + ("train here" if launcher.runs_here else "submit"))
        return errors.DONE
    launcher.check_jobs([submission.job for submission in selection.submissions])
    for sentence in _cost_sentences(workdir, selection, launcher):
        say(sentence)
    if flags.dry_run:
        _print_commands(workdir, manifest, selection, launcher)
        return errors.DONE
    _confirm(flags.yes)
    from_config.enter(file, workdir, whole_grid=True)
    began = time.monotonic()
    states = launcher.launch(selection, workdir, records, say)
    return conclude(workdir, states, time.monotonic() - began) if states else errors.DONE


def _check_paths(launcher: "Launcher", store: str, dry_run: bool) -> None:
    """Raises UserError where the jobs would not see the workdir or the store; with --dry_run it is only said."""
    try:
        launcher.check_paths(store)
    except UserError as e:
        if not dry_run:
            raise
        _say_as_comment(f"refused without --dry_run: {e}")


def _cost_sentences(workdir: "Workdir", selection: "Selection", launcher: "Launcher") -> list[str]:
    from moe_jax.plan import costs

    if launcher.runs_here:
        return [f"to train here: {costs.cost_of_jobs(selection.to_train)}"]
    plan = costs.matching_plan(workdir, [run for job in selection.to_train for run in job.runs], launcher.slices)
    sentences = [f"to submit: {costs.cost_sentence(costs.cost_of_jobs(selection.to_train, plan), plan)}"]
    if names := costs.runs_that_do_not_fit(selection.to_train, plan):
        some = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        sentences.append(f"by plan.json {count(len(names), 'run')} will not fit on {plan.topology}: {some}")
    return sentences


def _print_commands(workdir: "Workdir", manifest: "Manifest", selection: "Selection", launcher: "Launcher") -> None:
    """Prints what a shell can run, with what --dry_run leaves undone as comments."""
    commands = launcher.commands(selection.submissions)
    if workdir.manifest() != manifest:
        _say_as_comment(f"the jobs read {workdir.path / 'sweep.json'}, which --dry_run does not write")
    for name in (name for submission in selection.submissions for name in submission.reruns):
        _say_as_comment(f"{workdir.run_dir(name).path} must be moved aside before, which --dry_run does not do")
    for line in commands:
        print(shlex.join(line))


def _say_as_comment(sentence: str) -> None:
    """Prints a sentence so that a shell into which the output is pasted ignores it."""
    print(f"# {one_line(sentence)}")


def _confirm(yes: bool) -> None:
    """Raises UserError where there is no terminal to ask on, Stopped where the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("standard input is no terminal, so nobody can be asked; --yes submits without asking")
    try:
        answer = input("Submit? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise Stopped("nothing was submitted")
