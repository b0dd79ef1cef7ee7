"""The parser of a verb's flags: a mistake is one sentence with the flag that was probably meant, and exit code 2."""

import argparse
import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from moe_jax import errors

_PATHS = ("workdir", "store", "results", "out", "figures", "csv", "speeds", "requests", "tfds_data_dir")  # of any verb


class Parser(argparse.ArgumentParser):
    """argparse's parser without abbreviated flags; raises errors.UserError for whatever it cannot read."""

    def __init__(self, verb: str, description: str, parents: Sequence[argparse.ArgumentParser] = ()):
        super().__init__(
            prog=f"moe-jax {verb}",
            description=description,
            allow_abbrev=False,
            parents=list(parents),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:
        """As argparse's. An unknown flag is refused before a missing one, which it may have been meant to be, and so is
        a path of an object store that moe_jax cannot reach."""
        from moe_jax import files  # here, so that `moe-jax --help` stays instant

        self._refuse_unknown(args or ())
        flags = super().parse_args(args, namespace)
        for name in _PATHS:
            if isinstance(path := getattr(flags, name, None), str):
                files.refuse_foreign(path, f"--{name}")
        return flags

    def error(self, message: str) -> NoReturn:
        raise errors.UserError(f"{self.prog.partition(' ')[2]}: {message}; `{self.prog} --help` lists the flags")

    def _refuse_unknown(self, args: Iterable[str]) -> None:
        known = [*self._option_string_actions, *(["--config"] if "--config" in (self.epilog or "") else [])]
        for arg in args:
            name, _, _ = arg.partition("=")
            if arg == "--":  # what follows belongs to a launcher's client
                return
            if name.startswith("--") and name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
                self.error(f"there is no flag {arg}" + (f", did you mean {near[0]}?" if near else ""))
