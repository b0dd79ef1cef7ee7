"""`moe-jax train` that kills itself just before a given file operation under its workdir; for faults.py.

    killed.py OPERATION --config=… --workdir=…

OPERATION is the number of the operation, from 1; `result+N` counts from the first that concerns the result's file; 0 is
none. Imports little, so that a signal from outside hits the program and not this file.
"""

import os
import signal
import sys

AUDITED = {
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
}  # audit events; each is raised before the operation
RESULT = ".result.json."  # how the temporary file that becomes result.json begins


def watch(operation: str, workdir: str) -> list[int]:
    """Counts file operations from now on; returns a list whose only element is the count."""
    counted, (mark, _, number) = [0], operation.rpartition("+")
    left = int(number) or -1
    begun = not mark

    def count(event: str, args: tuple) -> None:
        nonlocal begun, left
        if event not in AUDITED or not str(args[0]).startswith(workdir):
            return
        counted[0] += 1
        begun = begun or RESULT in str(args[0])
        if begun:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    return counted


if __name__ == "__main__":
    operation, *argv = sys.argv[1:]
    counted = watch(operation, next(a for a in argv if a.startswith("--workdir=")).removeprefix("--workdir="))
    from moe_jax.cli import command, train

    code = command.run(train.main, argv, ends=True)
    print(f"{counted[0]} file operations", flush=True)
    sys.exit(code)
