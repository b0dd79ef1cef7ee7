"""Ready seqio Tasks, and what your own need to join them in a Mixture. Imports TensorFlow: only `prepare` comes here.

    # my_tasks.py: moe-jax prepare --mixture=web_and_code --module_import=my_tasks
    import seqio
    from moe_jax.data import seqio_tasks

    seqio_tasks.add_json_lines("my_code", {"train": "/data/code-*.jsonl.gz"})
    seqio.MixtureRegistry.add("web_and_code", [("c4_en", 4), ("my_code", 1)])

These Tasks give texts, which `prepare` turns to tokens with --vocabulary. Any other registered Task or Mixture will do
as well: one that gives token ids brings its own vocabulary (--vocabulary=task).
"""

import functools
import json

import numpy as np
import seqio
import tensorflow as tf

from moe_jax.data.tokenizer_json import TokenizerJson

TEXT = {"targets": seqio.Feature(seqio.PassThroughVocabulary(size=0), add_eos=False, dtype=tf.string, rank=0)}


def add_text_task(name: str, source: seqio.DataSource, field: str = "text") -> seqio.Task:
    """Registers a Task whose documents are one field of the source's examples."""
    rekey = functools.partial(seqio.preprocessors.rekey, key_map={"targets": field})
    return seqio.TaskRegistry.add(name, source, preprocessors=[rekey], output_features=TEXT)


def add_json_lines(name: str, patterns: dict[str, str], field: str = "text") -> seqio.Task:
    """Registers a Task over JSONL files, plain or .gz: a pattern for each split ("train", and "validation" if any)."""

    def read(path: tf.Tensor) -> tf.data.Dataset:
        kind = tf.where(tf.strings.regex_full_match(path, r".*\.gz"), "GZIP", "")
        return tf.data.TextLineDataset(path, compression_type=kind).map(document, tf.data.AUTOTUNE)

    def document(line: tf.Tensor) -> dict[str, tf.Tensor]:
        text = tf.numpy_function(lambda x: _bytes(json.loads(_text(x))[field]), [line], tf.string)
        return {field: tf.ensure_shape(text, [])}

    return add_text_task(name, seqio.FileDataSource(read, patterns), field)


class HuggingFaceVocabulary(seqio.Vocabulary):
    """A Hugging Face `tokenizer.json` for Tasks that make token ids themselves (GPT-2's, for krajewski2024)."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path
        with tf.io.gfile.GFile(path, "rb") as f:
            self.tokenizer = TokenizerJson(f.read(), path)

    @property
    def bos_id(self) -> None:
        return None

    @property
    def eos_id(self) -> int:
        return self.tokenizer.end_of_document

    @property
    def unk_id(self) -> None:
        return None

    @property
    def _base_vocab_size(self) -> int:
        return self.tokenizer.size

    def _encode(self, s: str) -> list[int]:
        return self.tokenizer.encode(s).tolist()

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        ids = tf.numpy_function(lambda x: self.tokenizer.encode(_text(x)), [s], tf.int32)
        return tf.ensure_shape(ids, [None])

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        text = tf.numpy_function(lambda x: _bytes(self.tokenizer.decode(x)), [ids], tf.string)
        return tf.ensure_shape(text, [])

    def __eq__(self, other) -> bool:
        return isinstance(other, HuggingFaceVocabulary) and self.tokenizer.file == other.tokenizer.file

    __hash__ = None


def _text(x: bytes | np.ndarray) -> str:
    """What numpy_function hands over: bytes in a graph, an array of no dimensions outside."""
    return np.asarray(x, object).item().decode()


def _bytes(text: str) -> np.ndarray:
    return np.array(text.encode(), object)


if "c4_en" not in seqio.TaskRegistry.names():
    add_text_task("c4_en", seqio.TfdsDataSource("c4/en:3.1.0"))
