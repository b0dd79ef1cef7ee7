"""A store's copy on this host's own disk: made once, verified, read by all of the host's processes.

FOLDER/<16 digits of the store's sha256>/   a store like any other, its store.json written last
FOLDER/<16 digits>.lock                     held while it is made

The copy counts when all its tokens have been read back and give the store's digest. A copy that was killed goes on with
the files that are missing; one that is damaged is made anew.
"""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from etils import epath

from moe_jax.data import files
from moe_jax.data.progress import stage
from moe_jax.data.store import INFO_NAME, SPLITS, MissingStore, Store, n_shards, open_store, shard_digest, write_info
from moe_jax.errors import UserError

_COPIERS = 8  # files at a time: an object store answers late, but many


def local_copy(store: Store, folder: str, say: Callable[[str], None] = print) -> Store:
    """The store, from its copy under the local `folder`, which is made first where it is missing.

    A copy that is damaged is removed and made anew; one that is found to be while it is read counts as unfinished.

    Raises UserError where `folder` is no local one or the store's own tokens are not those of its digest, OSError where
    the copy cannot be written."""
    if not folder or "://" in folder:
        raise UserError(f"config.data.cache = {folder!r}: must be a folder on this host's own disk")
    target = Path(folder) / store.info.sha256[:16]
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target.with_suffix(".lock"), lambda: say(f"{target}: another process copies {store.path}; waiting")):
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
    """The copy, from what an earlier start has copied of it, or anew where that is damaged."""
    if target.exists():
        try:
            return _copied(store, target)
        except UserError:
            say(f"{target}: what was copied of {store.path} before is damaged; it is made anew")
    return _copied(store, target)


def _copied(store: Store, target: Path) -> Store:
    """The copy, of the files that are there and those that are missing. Where they are not the store's, UserError, and
    they are removed."""
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


@contextmanager
def _alone(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Waits for a lock that the system frees however its holder ends."""
    with open(path, "ab") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(f, fcntl.LOCK_EX)
        yield


def _copy_files(source: epath.Path, target: Path) -> None:
    for torn in target.rglob(".*"):  # what a kill left half-written
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
    """What is read back: the SHA-256 of each shard of each split."""
    shards = [(split, k) for split in SPLITS for k in range(n_shards(copy.info.tokens[split]))]
    digests: dict[str, list[str]] = {split: [] for split in SPLITS}
    read = 0
    with stage(f"verify {copy.path}", len(shards), lambda: read) as advance:
        for split, k in shards:
            tokens = copy.shard(split, k)
            digests[split].append(shard_digest(tokens))
            read += len(tokens)
            advance()
    return digests
