"""The process in which one step is compiled: a request of compiles.py on stdin, the record to the file named.

`python -m moe_jax.compile_child OUT`, in aot.environment(); a compiler that crashes ends this process only.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from moe_jax import aot, command, config_fields, errors


def main(argv: Sequence[str]) -> int:
    asked = json.load(sys.stdin)
    config = config_fields.from_dict(asked["config"])
    topology = aot.Topology(asked["topology"], asked["slices"])
    compiled = aot.compile_step(config, asked["vocabulary_size"], topology, config.mesh)
    Path(argv[0]).write_text(json.dumps(compiled.to_dict()))
    return errors.DONE


if __name__ == "__main__":
    command.end(main)
