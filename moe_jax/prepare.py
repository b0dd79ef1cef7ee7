"""`moe-jax prepare`: text -> token store, in parallel, resumable; run again on a finished store it does nothing."""

import os
from collections.abc import Sequence

from moe_jax import command, errors

DESCRIPTION = """Makes the token store that training reads: each document's tokens and an end-of-document token,
one document after another.
Stopped at any moment, the same command goes on where it was; on a finished store it does nothing.

mixtures:
  python_stdlib    Python's own standard library: 12 MB of text that is on every machine (default)
  files:WHERE      text and JSONL files, .gz or .zst or neither: a folder, a file or a glob, local or gs://
  c4:FOLDER        C4's JSONL files: c4-train.*.json.gz, and c4-validation.*.json.gz held out
  NAME             a registered seqio Task or Mixture: c4_en (through TFDS), or yours with --module_import

vocabularies:
  byte             UTF-8 bytes (default)
  bpe:SIZE         a SentencePiece BPE of SIZE pieces, trained on the source
  PATH.model       a SentencePiece model
  PATH.json        a Hugging Face tokenizer.json
  task             the own vocabulary of a seqio Task that gives token ids"""


def main(argv: Sequence[str]) -> int | None:
    from moe_jax import configfile

    parser = command.parser("prepare", f"{DESCRIPTION}\n\n{configfile.HELP}")
    parser.add_argument("--store", help="folder or gs:// [the config's data.store, or stores/MIXTURE_VOCABULARY]")
    parser.add_argument("--mixture", help="what to read [the config's data.mixture]")
    parser.add_argument("--vocabulary", help="what to make tokens with [the config's data.vocabulary]")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes [one a core: %(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="chooses what is held out [0]")
    config_args, others = configfile.split(argv)
    parser.add_argument("--text_field", default="text", help="field of a JSONL line that holds the document [text]")
    parser.add_argument("--module_import", action="append", default=[], help="module that registers your seqio Tasks")
    parser.add_argument("--tfds_data_dir", help="folder or gs:// where TensorFlow Datasets are")
    args = parser.parse_args(others)
    if args.workers < 1:
        raise errors.UserError(f"--workers={args.workers}: must be at least 1")
    if abs(args.seed) >= 2**31:
        raise errors.UserError(f"--seed={args.seed}: must lie between -2^31 and 2^31")

    from moe_jax.data import build, corpus

    data = configfile.load(config_args).config.data if config_args else None
    mixture = args.mixture or (data.mixture if data else corpus.NAME)
    vocabulary = args.vocabulary or (data.vocabulary if data else "byte")
    store = args.store or (data.store if data else f"stores/{_file_name(mixture)}_{_file_name(vocabulary)}")
    settings = build.Settings(mixture, vocabulary, args.seed, args.text_field)
    if info := build.existing(store, settings):
        build.clean_up(store)
        print(f"{store} is finished: {_summary(info)}")
        return errors.DONE
    info = build.build(store, _source(mixture, store, args), settings, args.workers)
    print(f"{store}: {_summary(info)}")
    return errors.DONE


def _source(mixture: str, store: str, args):
    from moe_jax.data import corpus, seqio_source, text_files

    kind, _, where = mixture.partition(":")
    if mixture == corpus.NAME:
        return corpus.PythonLibrary(args.seed)
    if kind in ("files", "c4") and not where:
        raise errors.UserError(f"data.mixture={mixture}: it names no place; write {kind}:FOLDER")
    if kind == "files":
        return text_files.TextFiles(mixture, {None: where}, args.seed, args.text_field, left_out=store)
    if kind == "c4":
        return text_files.c4(where, args.seed)
    return seqio_source.SeqioSource(mixture, args.seed, tuple(args.module_import), args.tfds_data_dir)


def _summary(info) -> str:
    tokens = ", ".join(f"{info.tokens[s]:,} {s} tokens of {info.documents[s]:,} documents" for s in info.tokens)
    skipped = "".join(f"; skipped {n:,} documents ({reason})" for reason, n in info.skipped.items())
    return f"{tokens}; vocabulary of {info.vocabulary_size:,}; sha256 {info.sha256[:12]}{skipped}"


def _file_name(spec: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in spec.rstrip("/").split("/")[-1])


if __name__ == "__main__":
    command.end(main)
