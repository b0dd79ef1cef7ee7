"""`moe-jax import`: a folder of Hugging Face's transformers -> the folder of a run at step 0."""

from collections.abc import Sequence

from moe_jax.cli import command, outputs
from moe_jax.config import config_file

DESCRIPTION = """Makes a local folder of Hugging Face's transformers (config.json, safetensors, tokenizer.json) the
folder of a run at step 0, which moe_jax.load, evaluate, export and train.init_from take. Mixtral, Qwen2-MoE, Qwen3-MoE,
OLMoE, Llama and Qwen3 can be read; what one of them asks for and this package does not compute is refused. Flags
--config.FIELD=VALUE give what the folder does not fix: --config.data.sequence_length=512 (default: all its positions),
--config.train.batch_sequences=8."""


def main(argv: Sequence[str]) -> None:
    parser = command.parser("import", DESCRIPTION)
    parser.add_argument("--from", required=True, dest="source", metavar="HF_FOLDER", help="the folder, on a local disk")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="the new folder, on a local disk")
    parser.add_argument(
        "--store", metavar="S",
        help="the token store whose ids the model speaks (default: its own, or the vocabulary of its tokenizer.json)",
    )  # fmt: skip
    config_args, others = config_file.split(argv)
    flags = parser.parse_args(others)
    outputs.refuse_existing(flags.out, "--out")

    from moe_jax.errors import UserError
    from moe_jax.evaluation.huggingface import imported
    from moe_jax.training import checkpoint

    if any(arg.startswith("--config=") for arg in config_args):
        raise UserError("--config: the folder gives the config; give single fields, --config.FIELD=VALUE")
    checkpoint.say_errors_once()
    with outputs.writing(flags.out, "--out"):
        found = imported.import_folder(flags.source, flags.out, flags.store, config_args)
    print(
        f"{found.name}: {found.class_name} of {found.parameters:,} parameters in {flags.out}, config hash "
        f"{found.config_hash}"
    )
