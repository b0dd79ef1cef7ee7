"""A host's own copy of a token store: made once, verified, read by all of the host's processes.

FOLDER/<16 digits of the store's sha256>/   a store like any other, its store.json written last
FOLDER/<16 digits>.lock                     locked while the copy is made

The copy is finished when all its arrays have been read back and give the store's digest. After an interruption, the
next start copies the files that are missing; a damaged copy is made anew.
"""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from etils import epath

from moe_jax import files
from moe_jax.data.store import (
    ARRAYS,
    HELDOUT_BYTES,
    INFO_NAME,
    MissingStore,
    Store,
    n_shards,
    open_store,
    shard_digest,
    write_info,
)
from moe_jax.errors import UserError
from moe_jax.progress import stage

_COPIERS = 8  # files copied at the same time: an object store answers slowly, but many requests at once


def local_copy(store: Store, folder: str, say: Callable[[str], None] = print) -> Store:
    """Opens the store's copy under the local `folder`; makes it first where it is missing or damaged.

    A copy that is found damaged later, while it is read, loses its store.json, so that the next start makes it anew.

    Raises UserError if `folder` is not local or the store's tokens do not give its digest, OSError if the copy cannot
    be written."""
    if not folder or files.is_remote(folder):
        raise UserError(f"config.data.cache = {folder!r}: must be a folder on this host's own disk")
    target = Path(folder) / store.info.sha256[:16]
    target.parent.mkdir(parents=True, exist_ok=True)

    def wait() -> None:
        say(f"{target}: another process copies {store.path}; waiting")

    with files.locked(epath.Path(target.with_suffix(".lock")), wait):
        try:
            copy = open_store(str(target))
        except UserError as e:
            if not isinstance(e, MissingStore):
                say(f"{target}: this copy of {store.path} is damaged; it is made anew")
                shutil.rmtree(target)
            copy = _completed(store, target, say)
    copy.copy_of = store.path
    return copy


def _completed(store: Store, target: Path, say: Callable[[str], None]) -> Store:
    """The finished copy: what an earlier start left is completed, or replaced if it is damaged."""
    if target.exists():
        try:
            return _copied(store, target)
        except UserError:
            say(f"{target}: what was copied of {store.path} before is damaged; it is made anew")
    return _copied(store, target)


def _copied(store: Store, target: Path) -> Store:
    """Copies the files that are missing and verifies all. If the tokens are not the store's, removes the copy and
    raises UserError."""
    target.mkdir(exist_ok=True)
    _copy_files(epath.Path(store.path), target)
    try:
        right = store.info.digest_of(_digests(Store(str(target), store.info))) == store.info.sha256
    except UserError:
        right = False
    if not right:
        shutil.rmtree(target)
        raise UserError(
            f"the token store {store.path} is damaged: the tokens copied from it are not those of its digest "
            f"{store.info.sha256[:16]}; prepare it again"
        )
    write_info(epath.Path(target), store.info)
    return open_store(str(target))


def _copy_files(source: epath.Path, target: Path) -> None:
    for torn in target.rglob(".*"):  # temporary files of a process that was killed
        torn.unlink()
    names = [n for n in _names_under(source) if n != INFO_NAME]
    copied = 0

    def copy(name: str) -> None:
        nonlocal copied
        there, here = source / name, target / name
        if not (here.exists() and here.stat().st_size == there.stat().length):
            here.parent.mkdir(parents=True, exist_ok=True)
            with there.open("rb") as read, files.writing(epath.Path(here)) as written:
                shutil.copyfileobj(read, written, 2**22)
        copied += here.stat().st_size

    pool = ThreadPoolExecutor(_COPIERS)
    try:
        with stage(f"copy {source}", len(names), lambda: copied, unit="bytes") as advance:
            for _ in pool.map(copy, names):
                advance()
    finally:
        pool.shutdown(cancel_futures=True)


def _names_under(folder: epath.Path, prefix: str = "") -> list[str]:
    names = []
    for path in folder.iterdir():
        name = prefix + path.name
        names += _names_under(path, f"{name}/") if path.is_dir() else [name]
    return sorted(names)


def _digests(copy: Store) -> dict[str, list[str]]:
    """The SHA-256 of each shard of each array, read back from the disk."""
    shards = [(array, k) for array, split in ARRAYS.items() for k in range(n_shards(copy.info.tokens[split]))]
    digests: dict[str, list[str]] = {array: [] for array in ARRAYS}
    read = 0
    with stage(f"verify {copy.path}", len(shards), lambda: read) as advance:
        for array, k in shards:
            numbers = copy.shard(array, k)
            digests[array].append(shard_digest(numbers))
            read += len(numbers) * (array != HELDOUT_BYTES)
            advance()
    return digests
