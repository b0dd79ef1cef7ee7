"""Programs that stand for a cloud's clients: they note their arguments, and say and end as they are told."""

import os
import shlex
import stat
from pathlib import Path

_SCRIPT = """#!/usr/bin/env bash
folder=FOLDER
printf '%s\\0' "$@" > "$(mktemp "$folder/call-$(date +%s%N)-XXXXXX")" # several may be called at once
if [ -e "$folder/code" ]; then
  sleep "$(cat "$folder/seconds")"
  cat "$folder/output"
  exit "$(cat "$folder/code")"
fi
"""


class FakeClient:
    """A program of this name, first on the PATH of whoever uses `environment`."""

    def __init__(self, folder: Path, name: str):
        self.folder = folder / f"{name}-fake"
        self.folder.mkdir()
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        program = self.bin / name
        program.write_text(_SCRIPT.replace("FOLDER", shlex.quote(str(self.folder))))
        program.chmod(program.stat().st_mode | stat.S_IEXEC)

    @property
    def path(self) -> str:
        return f"{self.bin}{os.pathsep}{os.environ['PATH']}"

    def answers(self, output: str = "", code: int = 0, seconds: float = 0.0) -> None:
        """What the next calls print, end with, and take."""
        (self.folder / "output").write_text(output)
        (self.folder / "code").write_text(str(code))
        (self.folder / "seconds").write_text(str(seconds))

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of each call so far."""
        return [_arguments(path) for path in sorted(self.folder.glob("call-*"))]


def _arguments(path: Path) -> list[str]:
    return path.read_bytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
