"""safetensors files: tensors of a model by name, in one file or in several with an index."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from etils import epath
from safetensors.numpy import save

from moe_jax import files
from moe_jax.errors import UserError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 2**32  # of one file; so much is in memory twice while it is written
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def write(folder: epath.Path, tensors: Iterable[tuple[str, np.ndarray]], shard_bytes: int = SHARD_BYTES) -> None:
    """Writes tensors by name as transformers' save_pretrained names its files. Raises OSError."""
    shards: list[list[str]] = []
    shard: dict[str, np.ndarray] = {}

    def flush() -> None:
        data = save(shard, metadata={"format": "pt"})  # without which transformers refuses the file
        files.write_atomic(folder / f"{len(shards)}.tmp", data)
        shards.append(list(shard))
        shard.clear()

    size = total = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > shard_bytes:
            flush()
            size = 0
        shard[name] = tensor
        size, total = size + tensor.nbytes, total + tensor.nbytes
    flush()
    if len(shards) == 1:
        (folder / "0.tmp").rename(folder / WEIGHTS)
        return
    file_of = {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        (folder / f"{i}.tmp").rename(folder / file)
        file_of |= dict.fromkeys(names, file)
    files.write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": file_of})


def read(folder: epath.Path) -> dict[str, np.ndarray]:
    """All tensors of the folder's files. Raises UserError where there are none, or where a file is damaged."""
    try:
        weight_map = files.read_json(folder / INDEX).get("weight_map")
        names = sorted(set(weight_map.values())) if isinstance(weight_map, Mapping) else []
    except FileNotFoundError:
        names = [WEIGHTS]
    found: dict[str, np.ndarray] = {}
    for name in names:
        try:
            data = files.read_file(folder / name)
        except FileNotFoundError as e:
            raise UserError(f"{folder}: has no {name}; a folder of transformers with safetensors is needed") from e
        found |= _parsed(folder / name, data)
    if not found:
        raise UserError(f"{folder / INDEX}: names no files; a folder of transformers with safetensors is needed")
    return found


def _parsed(path: epath.Path, data: bytes) -> dict[str, np.ndarray]:
    try:
        entries: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(data)
    except (safetensors.SafetensorError, json.JSONDecodeError) as e:
        raise UserError(f"{path}: is no whole safetensors file ({e})") from e
    found = {}
    for name, entry in entries:
        if entry["dtype"] not in _DTYPES:
            raise UserError(f"{path}: its tensor {name} is of {entry['dtype']}; {', '.join(_DTYPES)} can be read")
        found[name] = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return found
