"""A run's newest checkpoint -> a folder that AutoModelForCausalLM.from_pretrained reads, and AutoTokenizer."""

import dataclasses

import jax
import numpy as np
from etils import epath

from moe_jax import files
from moe_jax.evaluation import loading
from moe_jax.evaluation.huggingface import architectures, card, tensors, tokenizer, weights
from moe_jax.sweep.result import Result
from moe_jax.sweep.rundir import RunDir

ORIGIN = "moe_jax.json"  # what `import` needs to know beyond transformers' own files


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written."""

    name: str  # of the run
    step: int
    class_name: str
    parameters: int
    dtype: str
    difference: str | None  # see card.difference
    tokenizer: str  # a sentence about its files


def export(run_folder: str, out: str, store: str | None = None) -> Exported:
    """Writes the folder `out`, whole or not at all. `store`: where the run's token store is now, which holds the
    vocabulary's file (default: where it was).

    Raises UserError where the folder is no run's, where no architecture fits its config, or where the vocabulary's
    file is not there; OSError, as of a full disk."""
    run = loading.run_of(run_folder)
    architecture = architectures.fitting(run.config)
    vocabulary = tokenizer.of_store(run.store, store)
    result = _result(run_folder)
    restored = loading.restore(run_folder)
    params = jax.tree.map(np.asarray, jax.device_get(restored.state.weights))
    dtype = str(params["tokens_Vxd"].dtype)
    difference = card.difference(run.config)
    end = run.store.end_of_document
    with files.new_folder(epath.Path(out)) as folder:
        tensors.write(folder, weights.tensors(params, weights.places(architecture, run.config)))
        values = architectures.config_json(run.config, run.counts.vocab_size, end, dtype)
        files.write_json(folder / "config.json", values)
        ends = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
        files.write_json(folder / "generation_config.json", ends)
        for name, content in vocabulary.files.items():
            files.write_atomic(folder / name, content)
        origin = {
            "run": run.name,
            "step": restored.step,
            "config_hash": run.config_hash,
            "store": dataclasses.asdict(run.store),
        }
        files.write_sealed(folder / ORIGIN, origin)
        text = card.readme(run, restored.step, result, architecture.class_name, difference)
        files.write_atomic(folder / "README.md", text.encode())
    size = sum(array.size for array in jax.tree.leaves(params))
    return Exported(run.name, restored.step, architecture.class_name, size, dtype, difference, vocabulary.sentence)


def _result(run_folder: str) -> Result | None:
    """The run's result; None while it is trained."""
    return RunDir(epath.Path(run_folder)).result()
