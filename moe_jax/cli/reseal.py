"""`moe-jax reseal FILE …`: accepts sealed files (docs/files.md) that were changed by hand, as they are."""

from collections.abc import Sequence

from moe_jax import errors
from moe_jax.cli import command


def main(argv: Sequence[str]) -> int:
    parser = command.parser("reseal", "Renew the seal of files that were changed by hand, so that they count again.")
    parser.add_argument("file", nargs="+", help="a JSON file of a sweep, a plan or a law")
    flags = parser.parse_args(argv)
    from etils import epath

    from moe_jax import files

    for name in flags.file:
        try:
            renewed = files.reseal(epath.Path(name))
        except FileNotFoundError as e:
            raise errors.UserError(f"{name}: is not there") from e
        print(f"{name}: {'sealed again' if renewed else 'its seal is right'}")
    return errors.DONE
