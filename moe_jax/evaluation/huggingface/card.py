"""The README of an exported folder: what the model is, what it was trained on, and what it is worth."""

from moe_jax.config.schema import Config
from moe_jax.sweep.result import Result
from moe_jax.sweep.run_record import RunRecord


def readme(run: RunRecord, step: int, result: Result | None, class_name: str, dropless: str | None) -> str:
    """The README's text. `dropless`: how what was exported differs from training, as `difference` says it."""
    c, counts = run.config, run.counts
    rows = [
        ("architecture", class_name),
        ("parameters", f"{counts.n_total:,}, of which a token meets {counts.n_active:,}"),
        ("layers, width", f"{c.model.n_layers}, {c.model.d_model}"),
        ("run", f"{run.name}, config hash {run.config_hash}"),
        ("step", f"{step:,} of {counts.steps:,}, {step * c.batch_tokens:,} tokens"),
        ("token store", f"{run.store.path}, SHA-256 {run.store.sha256}"),
    ]
    if c.moe is not None:
        rows.insert(3, ("experts", f"{c.moe.n_experts} a layer of width {c.moe.d_expert}, a token takes {c.moe.top_k}"))
    if result is not None and result.steps == step and result.eval_loss is not None:
        measured = f"{result.eval_loss:.4f} nats a token, {result.bits_per_byte:.4f} bits a byte"
        rows.append(("held-out loss in training", measured))
    table = "\n".join(f"| {what} | {value} |" for what, value in rows)
    notes = [f"{dropless[0].upper()}{dropless[1:]}."] if dropless else []
    if c.data.mask_documents:
        notes.append(
            "In training, attention did not cross the ends of documents; transformers lets it, so give it one document "
            "at a time."
        )
    notes.append(
        "A text begins after the token that ends a document, as in training: give the model that token first, or text "
        "alone to go on within a document."
    )
    return f"""---
library_name: transformers
pipeline_tag: text-generation
---

# {run.name}

A language model trained with moe_jax and exported for transformers:

    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)

| | |
|---|---|
{table}

{chr(10).join(notes)}
"""


def difference(config: Config) -> str | None:
    """How the model was trained where that is not how transformers computes it, which drops nothing; else None."""
    moe = config.moe
    if moe is None or moe.dispatch == "dropless":
        return None
    return (
        f"the model was trained with capacity factor {moe.capacity_factor:g} (dispatch {moe.dispatch}), beyond which "
        "tokens were dropped; transformers drops nothing, as dispatch dropless"
    )
