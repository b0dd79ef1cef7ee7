"""seqio Tasks and Mixtures as sources. All tests but one import TensorFlow in this process and are slow."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

from moe_jax.cli import prepare as verb
from moe_jax.data.prepare.seqio_source import SeqioSource
from moe_jax.data.prepare.text_files import TextFiles
from moe_jax.data.prepare.training_vocabulary import TASK_VOCABULARY
from moe_jax.data.sentencepiece_bpe import train_bpe
from moe_jax.data.store import open_store
from moe_jax.errors import BAD_INPUT, DONE, UserError
from tests.data_stores import byte_level, contents, make_store, words

TASKS = """
import seqio
from moe_jax.data.prepare import seqio_tasks

seqio_tasks.add_json_lines("a", {"train": "FOLDER/a-*.jsonl.gz", "validation": "FOLDER/v.jsonl"})
seqio_tasks.add_json_lines("b", {"train": "FOLDER/b-*.jsonl"}, field="content")
seqio.MixtureRegistry.add("three_to_one", [("a", 3), ("b", 1)])
"""


@pytest.fixture
def folder(tmp_path):
    """Files of 2 shards: a, with 600 documents, and b, with 400; 10 for validation; and my_tasks.py."""
    for i in range(2):
        lines = "".join(json.dumps({"text": f"a{i}.{j} é"}) + "\n" for j in range(300))
        (tmp_path / f"a-{i}.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
        lines = "".join(json.dumps({"content": f"b{i}.{j}"}) + "\n" for j in range(200))
        (tmp_path / f"b-{i}.jsonl").write_text(lines)
    (tmp_path / "v.jsonl").write_text("".join(json.dumps({"text": f"v{j}"}) + "\n" for j in range(10)))
    (tmp_path / "my_tasks.py").write_text(TASKS.replace("FOLDER", str(tmp_path)))
    return tmp_path


def prepare(folder, store, *flags):
    command = [sys.executable, "-m", "moe_jax", "prepare", "--module_import=my_tasks", f"--store={store}", *flags]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def texts(store, split):
    tokens = store.windows(split, np.array([0]), store.info.tokens[split])[0]
    return bytes(10 if t == 1 else t - 3 for t in tokens.tolist()).decode().splitlines()  # bytes; 1 ends documents


def test_a_mixture_of_ones_own_tasks_keeps_its_rates(folder, tmp_path):
    done = prepare(folder, tmp_path / "s", "--mixture=three_to_one", "--workers=1")
    assert done.returncode == DONE, done.stderr
    store = open_store(str(tmp_path / "s"))
    found = texts(store, "train")
    a, b = ([t for t in found if t[0] == letter] for letter in "ab")
    # Each document at most once and in the order of its file, until a, the first, is used up.
    assert a == [f"a{i}.{j} é" for i in range(2) for j in range(300)]
    assert b == [f"b{i}.{j}" for i in range(2) for j in range(200) if f"b{i}.{j}" in set(b)]
    assert 140 < len(b) < 260  # 200 expected, standard deviation 16
    assert texts(store, "heldout") == [f"v{j}" for j in range(10)]
    assert store.info.source["seqio_rates"] == {"a": 3.0, "b": 1.0}


def _divide_by_zero(dataset):
    return dataset.take(1 // 0)


slow = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class TestInThisProcess:
    pytestmark = slow

    @pytest.fixture(scope="class")
    def seqio(self):
        return pytest.importorskip("seqio")

    @pytest.fixture
    def source(self, seqio, folder):
        """Makes a source of a new Task over a-*.jsonl.gz, given its preprocessors and feature."""

        def make(name, *preprocessors, **feature):
            import tensorflow as tf

            seqio.TaskRegistry.remove(name)
            seqio.TaskRegistry.add(
                name,
                seqio.FileDataSource(
                    lambda f: tf.data.TextLineDataset(f).map(
                        lambda line: {"targets": tf.strings.regex_replace(line, '.*": "(.*)"}', r"\1")}
                    ),
                    {"train": str(folder / "b-*.jsonl")},
                ),
                preprocessors=preprocessors,
                output_features={"targets": seqio.Feature(**feature)},
            )
            from moe_jax.data.prepare import seqio_source

            seqio_source._load.cache_clear()
            return SeqioSource(name, 0)

        return make

    @pytest.mark.parametrize("kind", ["byte", "sentencepiece", "hugging_face"])
    @pytest.mark.parametrize("append_eos", [True, False])
    def test_a_tasks_own_token_ids_are_those_of_its_vocabulary(self, seqio, source, folder, kind, append_eos, tmp_path):
        if kind == "byte":
            theirs, spec = seqio.ByteVocabulary(extra_ids=0), "byte"
        elif kind == "sentencepiece":
            spec = str(tmp_path / "v.model")
            (tmp_path / "v.model").write_bytes(train_bpe(300, [text for _, text in words(0, 20)]))
            theirs = seqio.SentencePieceVocabulary(spec)
        else:
            from moe_jax.data.prepare.seqio_tasks import HuggingFaceVocabulary

            spec = str(tmp_path / "t.json")
            (tmp_path / "t.json").write_text(byte_level().to_str())
            theirs = HuggingFaceVocabulary(spec)
        steps = [seqio.preprocessors.tokenize] + [seqio.preprocessors.append_eos] * append_eos
        task = source(f"own_{kind}_{append_eos}", *steps, vocabulary=theirs, add_eos=append_eos)
        own = make_store(tmp_path / "own", task, TASK_VOCABULARY)
        files = TextFiles("f", {None: str(folder / "b-*.jsonl")}, 0, "content")
        ours = make_store(tmp_path / "ours", files, spec)

        def documents(store):
            """All documents, of both splits: the two sources do not hold out the same ones."""
            found = []
            for split, n in store.info.tokens.items():
                tokens = store.windows(split, np.array([0]), n)[0]
                ends = np.flatnonzero(tokens == store.info.end_of_document)
                found += [tuple(d) for d in np.split(tokens, ends + 1)[:-1]]
            return sorted(found)

        assert documents(own) == documents(ours)
        assert len(documents(own)) == 400
        assert own.info.end_of_document == ours.info.end_of_document
        assert sum(own.info.bytes.values()) == sum(ours.info.bytes.values())  # these vocabularies spell what they read
        assert ["bytes that the tokens spell" in verb._summary(s.info) for s in (own, ours)] == [True, False]
        assert own.held_out_bytes(np.array([0]), own.info.tokens["heldout"]) == own.info.bytes["heldout"] > 0
        assert 0 < own.info.documents["heldout"] < 20  # 4 expected
        with pytest.raises(UserError, match="use task"):
            make_store(tmp_path / "wrong", task, "byte")

    def test_a_changed_file_changes_the_fingerprint(self, seqio, source, folder):
        task = source("changing", vocabulary=seqio.ByteVocabulary())
        before = task.fingerprint(0)
        assert SeqioSource("changing", 0).fingerprint(0) == before
        with open(folder / "b-0.jsonl", "a") as f:
            f.write('{"content": "more"}\n')
        assert SeqioSource("changing", 0).fingerprint(0) != before

    def test_the_wrapped_tokenizer_is_a_seqio_vocabulary(self, seqio, tmp_path):
        import tensorflow as tf

        from moe_jax.data.prepare.seqio_tasks import HuggingFaceVocabulary

        (tmp_path / "t.json").write_text(byte_level().to_str())
        vocabulary, text = HuggingFaceVocabulary(str(tmp_path / "t.json")), "one, twee, 三\n"
        ids = vocabulary.encode(text)
        assert vocabulary.decode(ids) == text
        assert vocabulary.encode_tf(tf.constant(text)).numpy().tolist() == ids
        assert vocabulary.decode_tf(tf.constant(ids, tf.int32)).numpy().decode() == text
        assert vocabulary == HuggingFaceVocabulary(str(tmp_path / "t.json"))
        assert max(ids) < vocabulary.vocab_size

    def test_c4_through_tensorflow_datasets(self, seqio, tmp_path):
        import tensorflow as tf
        import tensorflow_datasets as tfds

        from moe_jax.data.prepare import seqio_source

        names = ("content-length", "content-type", "text", "timestamp", "url")
        splits = {
            split: tf.data.Dataset.from_tensor_slices({n: [f"{split} {n} {i}" for i in range(40)] for n in names})
            for split in ("train", "validation")
        }
        tfds.dataset_builders.store_as_tfds_dataset(
            "c4",
            version="3.1.0",
            config="en",
            data_dir=tmp_path / "tfds",
            features=tfds.features.FeaturesDict({n: tfds.features.Text() for n in names}),
            split_datasets=splits,
        )
        try:
            source = SeqioSource("c4_en", 0, (), str(tmp_path / "tfds"))
            store = make_store(tmp_path / "s", source)
        finally:
            seqio.set_tfds_data_dir_override(None)
            seqio_source._load.cache_clear()
        assert sorted(texts(store, "train")) == sorted(f"train text {i}" for i in range(40))
        assert sorted(texts(store, "heldout")) == sorted(f"validation text {i}" for i in range(40))

    def test_what_cannot_be_used_is_one_sentence(self, seqio, source, folder, tmp_path):
        for name, modules, says in [
            ("c4_em", (), "did you mean c4_en"),
            ("c4_en", ("no_such_module",), "--module_import=no_such_module: ModuleNotFoundError"),
        ]:
            with pytest.raises(UserError, match=says) as e:
                _ = SeqioSource(name, 0, modules).n_shards
            assert "cannot be read" not in str(e.value)
        passing = {"vocabulary": seqio.PassThroughVocabulary(100), "add_eos": False}
        with pytest.raises(UserError, match="no end-of-sentence token"):
            _ = source("endless", seqio.preprocessors.tokenize, **passing).vocabulary
        broken = source("broken", _divide_by_zero, vocabulary=seqio.ByteVocabulary())
        with pytest.raises(UserError, match="broken cannot be read: ZeroDivisionError: integer"):
            make_store(tmp_path / "s", broken, TASK_VOCABULARY)

    def test_the_number_of_workers_changes_nothing(self, folder, tmp_path):
        for workers in (1, 3):
            flags = ["--mixture=three_to_one", "--vocabulary=bpe:275", f"--workers={workers}"]
            assert prepare(folder, tmp_path / f"s{workers}", *flags).returncode == DONE
        assert contents(tmp_path / "s1") == contents(tmp_path / "s3")

    def test_an_unknown_name_ends_the_command_with_a_sentence(self, folder, tmp_path):
        done = prepare(folder, tmp_path / "s", "--mixture=two_to_one")
        assert done.returncode == BAD_INPUT
        assert "did you mean three_to_one?" in done.stderr
        assert "Traceback" not in done.stderr
