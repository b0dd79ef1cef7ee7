"""`moe-jax export`: a run's newest checkpoint -> a folder that Hugging Face's transformers loads."""

from collections.abc import Sequence

from moe_jax.cli import command, outputs

DESCRIPTION = """Writes a run's newest checkpoint as a folder that AutoModelForCausalLM.from_pretrained and
AutoTokenizer.from_pretrained of Hugging Face's transformers load: Mixtral, Qwen2-MoE, Qwen3-MoE or OLMoE, Llama or
Qwen3 for dense models, whichever computes what the run's config says; a config that none fits is refused with the
fields that stand in the way. Needs neither torch nor transformers."""


def main(argv: Sequence[str]) -> None:
    parser = command.parser("export", DESCRIPTION)
    parser.add_argument("--workdir", required=True, metavar="W/runs/NAME", help="folder or gs:// of the run")
    parser.add_argument("--to", required=True, choices=["hf"], help="hf: the form of Hugging Face's transformers")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="the new folder, on a local disk")
    parser.add_argument(
        "--store",
        metavar="S",
        help="where the run's token store, which keeps the vocabulary, is now (default: as then)",
    )
    flags = parser.parse_args(argv)
    outputs.refuse_existing(flags.out, "--out")

    from moe_jax.evaluation.huggingface import exported

    with outputs.writing(flags.out, "--out"):
        found = exported.export(flags.workdir, flags.out, flags.store)
    print(
        f"{found.name}: step {found.step:,} as {found.class_name}, {found.parameters:,} parameters in {found.dtype}, "
        f"{found.tokenizer}, in {flags.out}"
    )
    if found.difference:
        print(f"{found.name}: {found.difference}")
