"""`moe-jax prepare`: text -> token store, in parallel and resumable."""

import os
from collections.abc import Sequence

from moe_jax import errors
from moe_jax.cli import command

DESCRIPTION = """Makes the token store that training reads: the tokens of one document after another, each followed by
an end-of-document token.
If it is stopped, the same command continues where it was. On a finished store it does nothing.

mixtures:
  python_stdlib    Python's own standard library: 12 MB of text that every machine with Python has (default)
  files:WHERE      text, JSON(L), CSV, TSV (plain, .gz or .zst), Parquet and Arrow: a folder, a file or a glob,
                   local or gs://
  c4:FOLDER        C4's JSONL files: c4-train.*.json.gz, and c4-validation.*.json.gz held out
  NAME             a registered seqio Task or Mixture: c4_en (through TFDS), or yours with --module_import

vocabularies:
  byte             UTF-8 bytes (default)
  bpe:SIZE         a SentencePiece BPE of SIZE pieces, trained on the source
  PATH.model       a SentencePiece model
  PATH.json        a Hugging Face tokenizer.json
  task             the vocabulary of a seqio Task that gives token ids"""


def main(argv: Sequence[str]) -> int | None:
    from moe_jax.config import config_file

    parser = command.parser("prepare", f"{DESCRIPTION}\n\n{config_file.HELP}")
    parser.add_argument("--store", help="folder or gs:// [the config's data.store, or stores/MIXTURE_VOCABULARY]")
    parser.add_argument("--mixture", help="the text to read [the config's data.mixture]")
    parser.add_argument("--vocabulary", help="the vocabulary [the config's data.vocabulary]")
    parser.add_argument(
        "--end_of_document", metavar="TOKEN", help="the special token that ends a document [the vocabulary's own]"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="number of processes [one per core: %(default)s]"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of held-out documents [0]")
    config_args, others = config_file.split(argv)
    parser.add_argument(
        "--text_field", default="text", help="field of a JSON object, or column of a table, that holds the text [text]"
    )
    parser.add_argument(
        "--follow_links", action="store_true", help="read also what symbolic links out of the folder lead to"
    )
    parser.add_argument(
        "--module_import", action="append", default=[], help="a module that registers seqio Tasks of yours"
    )
    parser.add_argument("--tfds_data_dir", help="folder or gs:// of TensorFlow Datasets")
    args = parser.parse_args(others)
    if args.workers < 1:
        raise errors.UserError(f"--workers={args.workers}: must be at least 1")
    if abs(args.seed) >= 2**31:
        raise errors.UserError(f"--seed={args.seed}: must lie between -2^31 and 2^31")

    from moe_jax.data.prepare import build, corpus

    config = config_file.load(config_args).config if config_args else None
    data, model_vocab_size = (config.data, config.model.vocab_size) if config else (None, None)
    mixture = args.mixture or (data.mixture if data else corpus.NAME)
    vocabulary = args.vocabulary or (data.vocabulary if data else "byte")
    store = args.store or (data.store if data else f"stores/{_file_name(mixture)}_{_file_name(vocabulary)}")
    settings = build.Settings(mixture, vocabulary, args.seed, args.text_field, args.end_of_document)
    if info := build.existing(store, settings, model_vocab_size):
        build.clean_up(store)
        print(f"{store} is finished: {_summary(info)}")
        return errors.DONE
    info = build.build(store, _source(mixture, store, args), settings, args.workers, model_vocab_size)
    print(f"{store}: {_summary(info)}")
    return errors.DONE


def _source(mixture: str, store: str, args):
    from moe_jax.data.prepare import corpus, seqio_source, text_files

    kind, _, where = mixture.partition(":")
    if mixture == corpus.NAME:
        return corpus.PythonLibrary(args.seed)
    if kind in ("files", "c4") and not where:
        raise errors.UserError(f"data.mixture={mixture}: it names no folder; write {kind}:FOLDER")
    if kind == "files":
        return text_files.TextFiles(mixture, {None: where}, args.seed, args.text_field, store, args.follow_links)
    if kind == "c4":
        return text_files.c4(where, args.seed, args.follow_links)
    return seqio_source.SeqioSource(mixture, args.seed, tuple(args.module_import), args.tfds_data_dir)


def _summary(info) -> str:
    from moe_jax.data.prepare.training_vocabulary import TASK_VOCABULARY

    tokens = ", ".join(f"{info.tokens[s]:,} {s} tokens of {info.documents[s]:,} documents" for s in info.tokens)
    end = f"{info.end_token} (id {info.end_of_document})".lstrip()
    sentences = [tokens, f"vocabulary of {info.vocab_size:,}", f"documents end in {end}", f"sha256 {info.sha256[:12]}"]
    if info.settings["vocabulary"] == TASK_VOCABULARY:
        sentences.append("bits per byte will count the bytes that the tokens spell, for the Task gives no text")
    if (spelt := info.heldout_spelt_bytes) != (held := info.bytes["heldout"]):
        sentences.append(
            f"the held-out tokens spell {spelt:,} bytes of a text of {held:,}, and bits per byte count the text's"
        )
    if unknown := [f"{n:,} of {s} ({100 * n / info.tokens[s]:.3g}%)" for s, n in info.unknown.items() if n]:
        sentences.append(f"tokens for what the vocabulary does not know: {', '.join(unknown)}")
    return "; ".join([*sentences, *(f"skipped {n:,} ({reason})" for reason, n in info.skipped.items())])


def _file_name(spec: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in spec.rstrip("/").split("/")[-1])
