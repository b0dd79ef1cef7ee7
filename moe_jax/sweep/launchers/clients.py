"""Calls the command-line clients of clouds and clusters."""

import subprocess

Command = list[str]


def call(command: Command) -> tuple[int, str]:
    """(exit code, everything it printed). Questions that the client asks are answered with no."""
    done = subprocess.run(
        command, input="n\n" * 8, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    return done.returncode, done.stdout


def failure_sentence(client: str, code: int, output: str) -> str:
    """One sentence with the client's exit code and its last lines."""
    said = [line.strip() for line in output.splitlines() if line.strip()]
    return f"{client} failed with code {code}: {' / '.join(said[-3:])[-600:] or 'it said nothing'}"
