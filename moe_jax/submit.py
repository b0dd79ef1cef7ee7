"""`moe-jax submit`: the jobs of a config's grid, given to a launcher."""

import argparse
import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moe_jax import command, configfile, errors
from moe_jax.errors import Stopped, UserError
from moe_jax.launchers import restarts
from moe_jax.tables import count, one_line

if TYPE_CHECKING:
    from moe_jax.choosing import Choice
    from moe_jax.launchers.remote import Launcher, Place
    from moe_jax.manifest import Manifest
    from moe_jax.workdir import Workdir

DESCRIPTION = """Gives every run of a config's grid that has no result yet to a launcher, one job a run, or a trunk with
its branches. Runs that are done or diverged are left alone, and so is what was submitted before: the same command again
submits what is missing. What the jobs cost is said, and asked for, first."""
LAUNCHERS = ("xpk", "queued-resources", "local")


def main(argv: Sequence[str]) -> int:
    own, extra = _cut(argv)
    config_args, others = configfile.split(own)
    launcher = _parser([]).parse_known_args([a for a in others if a not in ("-h", "--help")])[0].launcher
    parser = _parser([launcher] if launcher else LAUNCHERS)
    flags = parser.parse_args(others)
    if flags.launcher is None:
        raise UserError(f"--launcher: give one of {', '.join(LAUNCHERS)}")
    if flags.max_restarts < 0:
        raise UserError(f"--max_restarts={flags.max_restarts}: must not be negative")
    file = configfile.load(config_args)
    if flags.launcher == "local":
        if extra:
            raise UserError(f"{extra[0]}: --launcher=local passes nothing on after --")
        return _submit_here(file, flags)
    return _submit_elsewhere(file, flags, extra)


def _cut(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """What stands before `--`, and what is passed on to the launcher's client."""
    argv = list(argv)
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at], tuple(argv[at + 1 :])


def _parser(launchers: Sequence[str]) -> argparse.ArgumentParser:
    """The flags of these launchers, so that a flag of another is refused as unknown."""
    parser = command.parser("submit", DESCRIPTION)
    parser.add_argument("--workdir", required=bool(launchers), metavar="W", help="gs:// of the sweep, or a folder")
    parser.add_argument("--launcher", choices=LAUNCHERS, help="where the jobs run")
    parser.add_argument("--dry_run", action="store_true", help="print every command, quoted for a shell; write nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--retry_failed", action="store_true", help="submit again what failed or gives no sign of life")
    parser.add_argument(
        "--retry", action="append", default=[], metavar="NAME", help="submit this run or trunk again, whatever it does"
    )
    parser.add_argument(
        "--rerun", action="append", default=[], metavar="NAME", help="move this run's result aside and train it again"
    )
    parser.add_argument(
        "--max_restarts", type=int, default=restarts.DEFAULT_LIMIT, metavar="N",
        help=f"of a job that was stopped or crashed, not of one that was refused or diverged "
        f"(default {restarts.DEFAULT_LIMIT})",
    )  # fmt: skip
    remote = [name for name in launchers if name != "local"]
    if remote:
        group = parser.add_argument_group(" and ".join(remote), "flags after -- are passed on to their clients")
        group.add_argument("--project", required=len(launchers) == 1, help="Google Cloud project")
        group.add_argument("--zone", required=len(launchers) == 1, help="for example us-east5-a")
        group.add_argument(
            "--shared_filesystem", action="store_true",
            help="workdir and store are paths that the jobs see too (Filestore, NFS), not gs://",
        )  # fmt: skip
    if "xpk" in launchers:
        group, required = parser.add_argument_group("xpk"), len(launchers) == 1
        group.add_argument("--cluster", required=required, help="GKE cluster with xpk's queues")
        group.add_argument("--tpu_type", required=required, help="xpk's name of a slice, for example v5litepod-16")
        group.add_argument("--num_slices", type=int, default=1, help="slices of a job (default 1)")
        group.add_argument("--docker_image", help="an image with moe_jax in it (tpu_scripts/build_image.sh)")
        group.add_argument("--base_docker_image", help="an image to which xpk adds this directory")
        group.add_argument("--priority", choices=("very-low", "low", "medium", "high", "very-high"))
        group.add_argument(
            "--grace_seconds", type=int, default=300, metavar="S", help="from SIGTERM to SIGKILL (default 300)"
        )
    if "queued-resources" in launchers:
        group, required = parser.add_argument_group("queued-resources"), len(launchers) == 1
        group.add_argument("--accelerator_type", required=required, help="for example v5litepod-16")
        group.add_argument("--runtime_version", required=required, help="for example v2-alpha-tpuv5-lite")
        group.add_argument("--spot", action="store_true", help="capacity that may be taken away")
        group.add_argument(
            "--queues", type=int, default=1, metavar="N", help="slices at most, each with a list of jobs (default 1)"
        )
    if "local" in launchers:
        group = parser.add_argument_group("local")
        group.add_argument("--jobs", type=int, default=1, metavar="N", help="at a time (default 1)")
    parser.epilog = configfile.HELP
    return parser


def _submit_elsewhere(file: configfile.ConfigFile, flags: argparse.Namespace, extra: tuple[str, ...]) -> int:
    from moe_jax import choosing, costs, files, planning, submitting
    from moe_jax.launchers import remote
    from moe_jax.submission import Submission
    from moe_jax.workdir import Workdir

    workdir = Workdir(flags.workdir)
    _check_places(file, flags)
    manifest, _, _ = planning.enter(file, workdir, whole_grid=True, writes=False)
    launcher = _launcher(flags, extra, remote.Place(str(files.absolute(workdir.path)), manifest.sweep))
    if not flags.dry_run:
        remote.need(launcher)
    submission = Submission(workdir)
    again = choosing.Again(flags.retry_failed, tuple(flags.retry), tuple(flags.rerun))
    here = choosing.Here(launcher.address) if flags.dry_run else choosing.Here(launcher.address, launcher.lost)
    choice = choosing.choose(workdir, manifest, submission.newest(), again, here)
    say = _comment if flags.dry_run else print
    for words in [*file.refused, *choice.left_alone]:
        say(words)
    if not choice.tickets:
        say("there is nothing to submit")
        return errors.DONE
    submitting.refuse_packs([ticket.job for ticket in choice.tickets], launcher.slices)
    known = costs.forecasts(workdir, [run for job in choice.to_train for run in job.runs], launcher.slices)
    say(f"to submit: {costs.words(costs.of(choice.to_train, known), known)}")
    if names := costs.unfit(choice.to_train, known):
        some = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        say(f"by plan.json {count(len(names), 'run')} will not fit on {known.topology}: {some}")
    batches = launcher.deal(choice.tickets)
    if flags.dry_run:
        _say_what_is_not_done(workdir, manifest, choice)
        for line in [*launcher.preparation(), *map(launcher.command, batches)]:
            print(shlex.join(line))
        return errors.DONE
    _confirm(flags.yes)
    planning.enter(file, workdir, whole_grid=True)
    launcher.delete(sorted(choice.lost))
    submitting.submit(launcher, batches, workdir, submission, say)
    return errors.DONE


def _comment(words: str) -> None:
    """For a shell that what is printed is pasted into."""
    print(f"# {one_line(words)}")


def _say_what_is_not_done(workdir: "Workdir", manifest: "Manifest", choice: "Choice") -> None:
    if workdir.manifest() != manifest:
        _comment(f"{workdir.path / 'sweep.json'} is what the jobs read, and --dry_run does not write it")
    for name in (name for ticket in choice.tickets for name in ticket.reruns):
        _comment(f"{workdir.run_dir(name).path} is moved aside before, and --dry_run does not do it")


def _check_places(file: configfile.ConfigFile, flags: argparse.Namespace) -> None:
    """Raises UserError where the jobs could not see what this machine sees."""
    store = file.config.data.store
    if flags.shared_filesystem:
        if "://" not in store and not store.startswith("/"):
            raise UserError(f"--config.data.store={store}: give its path from the root, as the jobs see it")
        return
    for what, path in (("--workdir", flags.workdir), ("--config.data.store", store)):
        if "://" not in path:
            raise UserError(
                f"{what}={path}: is on this machine, and the jobs run elsewhere: put it on gs:// (the store by gcloud "
                "storage cp --recursive), or say --shared_filesystem where they see the same path"
            )


def _launcher(flags: argparse.Namespace, extra: tuple[str, ...], place: "Place") -> "Launcher":
    if flags.launcher == "xpk":
        from moe_jax.launchers import xpk

        return xpk.Xpk(_options(xpk.Options, flags, extra), place)
    from moe_jax.launchers import queued_resources

    return queued_resources.QueuedResources(_options(queued_resources.Options, flags, extra), place)


def _options(kind: type, flags: argparse.Namespace, extra: tuple[str, ...]):
    given = vars(flags) | {"extra": extra}
    return kind(**{field.name: given[field.name] for field in dataclasses.fields(kind)})


def _confirm(yes: bool) -> None:
    """Raises UserError where nobody is there to ask, Stopped where the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("nobody can be asked here (standard input is no terminal); --yes submits without asking")
    try:
        answer = input("Submit? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise Stopped("nothing was submitted")


def _submit_here(file: configfile.ConfigFile, flags: argparse.Namespace) -> int:
    from moe_jax import choosing, costs, planning, sweep
    from moe_jax.launchers import rounds
    from moe_jax.progress import Display
    from moe_jax.submission import Submission
    from moe_jax.workdir import Workdir

    if flags.jobs < 1:
        raise UserError(f"--jobs={flags.jobs}: must be at least 1")
    workdir = Workdir(flags.workdir)
    manifest, _, _ = planning.enter(file, workdir, whole_grid=True, writes=False)
    say = _comment if flags.dry_run else print
    again = choosing.Again(flags.retry_failed, tuple(flags.retry), tuple(flags.rerun))
    here = choosing.Here(None, waits=True)
    choice = choosing.choose(workdir, manifest, Submission(workdir).newest(), again, here)
    for words in [*file.refused, *choice.left_alone]:
        say(words)
    if not choice.tickets:
        say("there is nothing to train here")
        return errors.DONE
    say(f"to train here: {costs.of(choice.to_train)}")
    if flags.dry_run:
        _say_what_is_not_done(workdir, manifest, choice)
        for ticket in choice.tickets:
            print(shlex.join(["moe-jax", "train", f"--workdir={flags.workdir}", *ticket.job.flags]))
        return errors.DONE
    _confirm(flags.yes)
    planning.enter(file, workdir, whole_grid=True)
    began = time.monotonic()
    for name in (name for ticket in choice.tickets for name in ticket.reruns):
        workdir.set_run_aside(name)
    runs = [run for ticket in choice.tickets for run in ticket.job.runs]
    with Display() as display:
        states = rounds.train(workdir, runs, flags.jobs, flags.max_restarts, display)
    return sweep.conclude(workdir, states, time.monotonic() - began)


if __name__ == "__main__":
    command.end(main)
