"""The process that compiles one step: `python -m moe_jax.cli.compile_step OUT`, in aot.environment().

Reads a compiles.Request as JSON from stdin and writes the record to OUT. A crash ends this process only.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from moe_jax import errors
from moe_jax.cli import command
from moe_jax.config import fields
from moe_jax.plan import aot


def main(argv: Sequence[str]) -> int:
    request = json.load(sys.stdin)
    config = fields.from_dict(request["config"])
    topology = aot.Topology(request["topology"], request["slices"])
    compiled = aot.compile_step(config, request["vocab_size"], topology, config.mesh)
    Path(argv[0]).write_text(json.dumps(compiled.to_dict()))
    return errors.DONE


if __name__ == "__main__":
    command.end(main)
