"""One source shard -> the tokens of its documents, a file for each split: the resumable half of `prepare`.

A piece is finished when its `.json` is there, which is written last and says what the tokens' SHA-256 are.
"""

import collections
import dataclasses
import hashlib

import numpy as np
from etils import epath

from moe_jax.data import files, workers
from moe_jax.data.sources import Source
from moe_jax.data.store import SPLITS, token_dtype
from moe_jax.data.vocabularies import Vocabulary

# Tokens are handed to the file, and to the progress bar, so many bytes of text at a time.
_BUFFER_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Piece:
    """What came of one source shard; counts by split."""

    fingerprint: str
    tokens: dict[str, int]
    bytes: dict[str, int]
    token_bytes: dict[str, int]
    documents: dict[str, int]
    skipped: dict[str, int]
    sha256: dict[str, str]  # of the file of tokens


def mark(folder: epath.Path, shard: int) -> epath.Path:
    return folder / f"{shard:06d}.json"


def token_file(folder: epath.Path, shard: int, split: str) -> epath.Path:
    return folder / f"{shard:06d}-{split}.tokens"


def fingerprint(source: Source, vocabulary: Vocabulary, shard: int) -> str:
    """Changes when the shard's content or the vocabulary does: what was made of another is made again."""
    return f"{source.fingerprint(shard)} {vocabulary.describe()}"


def finished(source: Source, vocabulary: Vocabulary, folder: epath.Path, shard: int) -> Piece | None:
    """The shard's piece, if it is done, was made of what the shard is now, and its tokens are as they were written."""
    try:
        piece = Piece(**files.read_sealed(mark(folder, shard)))
        if piece.fingerprint != fingerprint(source, vocabulary, shard):
            return None
        for split in SPLITS:
            with token_file(folder, shard, split).open("rb") as f:
                if hashlib.file_digest(f, "sha256").hexdigest() != piece.sha256[split]:
                    return None
    except (FileNotFoundError, ValueError, TypeError):
        return None
    workers.count(sum(piece.tokens.values()))
    return piece


def make(source: Source, vocabulary: Vocabulary, folder: epath.Path, shard: int, hold_out_first: bool = False) -> Piece:
    """Reads the shard, writes its tokens, each document's followed by the end-of-document token.

    With `hold_out_first` its first document is held out, whatever the source says; such a piece is never `finished`,
    for the next start may find that chance held out another."""
    made_of = fingerprint(source, vocabulary, shard) + " first held out" * hold_out_first
    lengths = vocabulary.byte_lengths()
    end = np.array([vocabulary.end_of_document])
    dtype = token_dtype(vocabulary.size)
    counts = {name: dict.fromkeys(SPLITS, 0) for name in ("tokens", "bytes", "token_bytes", "documents")}
    skipped: collections.Counter[str] = collections.Counter()
    digests = {split: hashlib.sha256() for split in SPLITS}

    outputs = [files.writing(token_file(folder, shard, split)) for split in SPLITS]
    with outputs[0] as train, outputs[1] as heldout:
        sink = dict(zip(SPLITS, (train, heldout), strict=True))
        held: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
        text_bytes = 0

        def flush() -> None:
            nonlocal text_bytes
            for split, parts in held.items():
                if not parts:
                    continue
                tokens = np.concatenate(parts)
                data = tokens.astype(dtype).tobytes()
                sink[split].write(data)
                digests[split].update(data)
                counts["tokens"][split] += len(tokens)
                counts["token_bytes"][split] += int(lengths[tokens].sum())
                workers.count(len(tokens))
                parts.clear()
            text_bytes = 0

        for document in source.documents(shard, lambda reason: skipped.update([reason])):
            if document.tokens is None:
                tokens, n_bytes = vocabulary.encode(document.text), len(document.text.encode())
            else:
                tokens, n_bytes = document.tokens, int(lengths[document.tokens].sum())
            split = document.split
            if hold_out_first and not sum(counts["documents"].values()):
                split = "heldout"
            held[split] += [tokens, end]
            counts["bytes"][split] += n_bytes
            counts["documents"][split] += 1
            text_bytes += n_bytes
            if text_bytes >= _BUFFER_BYTES:
                flush()
        flush()

    sha256 = {split: digest.hexdigest() for split, digest in digests.items()}
    piece = Piece(made_of, skipped=dict(sorted(skipped.items())), sha256=sha256, **counts)
    files.write_sealed(mark(folder, shard), dataclasses.asdict(piece))
    return piece
