"""Where modules of the user's own (routers, seqio Tasks) are looked for."""

import os
import sys


def look_in_current_folder() -> None:
    """Appends the current folder to Python's path, where the command `moe-jax`, unlike `python -m`, does not put it."""
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)
