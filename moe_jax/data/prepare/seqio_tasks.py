"""Ready seqio Tasks, and functions to register your own and mix them. Imports TensorFlow.

    # my_tasks.py: moe-jax prepare --mixture=web_and_code --module_import=my_tasks
    import seqio
    from moe_jax.data.prepare import seqio_tasks

    seqio_tasks.add_json_lines("my_code", {"train": "/data/code-*.jsonl.gz"})
    seqio.MixtureRegistry.add("web_and_code", [("c4_en", 4), ("my_code", 1)])

These Tasks give texts, which `prepare` turns into tokens of --vocabulary. Any other registered Task or Mixture works as
well; one that gives token ids has its own vocabulary (--vocabulary=task).
"""

import functools
import json

import numpy as np
import seqio
import tensorflow as tf

from moe_jax.data.tokenizer_json import TokenizerJson

TEXT = {"targets": seqio.Feature(seqio.PassThroughVocabulary(size=0), add_eos=False, dtype=tf.string, rank=0)}


def add_text_task(name: str, source: seqio.DataSource, field: str = "text") -> seqio.Task:
    """Registers a Task whose documents are the given field of the source's examples, texts in UTF-8."""
    rekey = functools.partial(seqio.preprocessors.rekey, key_map={"targets": field})
    return seqio.TaskRegistry.add(name, source, preprocessors=[rekey], output_features=TEXT)


def add_json_lines(name: str, patterns: dict[str, str], field: str = "text") -> seqio.Task:
    """Registers a Task over JSONL files, plain or .gz: a glob for "train" and, if there is one, for "validation"."""

    def read(path: tf.Tensor) -> tf.data.Dataset:
        kind = tf.where(tf.strings.regex_full_match(path, r".*\.gz"), "GZIP", "")
        return tf.data.TextLineDataset(path, compression_type=kind).map(document, tf.data.AUTOTUNE)

    def document(line: tf.Tensor) -> dict[str, tf.Tensor]:
        text = tf.numpy_function(lambda x: _bytes(json.loads(_text(x))[field]), [line], tf.string)
        return {field: tf.ensure_shape(text, [])}

    return add_text_task(name, seqio.FileDataSource(read, patterns), field)


class HuggingFaceVocabulary(seqio.Vocabulary):
    """A Hugging Face `tokenizer.json` for Tasks that tokenise themselves (krajewski2024 uses GPT-2's).

    Raises UserError if the file is not one, or if no token in it ends a document."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path
        self.tokenizer = TokenizerJson.read(path)

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
    """The text of numpy_function's argument: bytes in a graph, an array without dimensions outside one."""
    return np.asarray(x, object).item().decode()


def _bytes(text: str) -> np.ndarray:
    return np.array(text.encode(), object)


if "c4_en" not in seqio.TaskRegistry.names():
    add_text_task("c4_en", seqio.TfdsDataSource("c4/en:3.1.0"))
