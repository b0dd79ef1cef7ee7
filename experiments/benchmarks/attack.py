"""Damages each kind of file of a finished sweep in every way of tests/attack.py, and shows what the verbs make of it:

    python -m experiments.benchmarks.attack [--most=60] [--verbs=status,collect]

A row is a verb and a kind of file; a column counts the cases of a class. At most `--most` cases a row are tried, evenly
drawn from all. Ends with 1 on a traceback, on a case without an end, and on a sealed file that changes an outcome
without a word.
"""

import argparse
import collections
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests import attack, attacked_sweep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=60, help="cases a verb and kind of file (default 60)")
    parser.add_argument("--verbs", default=",".join(attack.READS), help="the verbs to try (default: all)")
    flags = parser.parse_args()
    table = Table("verb", "file", *attack.CLASSES)
    bad, total = [], collections.Counter()
    with tempfile.TemporaryDirectory() as scratch:
        sound = attacked_sweep.make(Path(scratch))
        rows = [(verb, kind) for verb in flags.verbs.split(",") for kind in attack.READS[verb]]
        for verb, kind in track(rows, console=Console(stderr=True)):
            classes = attack.attack_kind(sound, Path(scratch), verb, kind, flags.most)
            table.add_row(verb, kind, *(str(len(classes[c])) if classes[c] else "–" for c in attack.CLASSES))
            total.update({c: len(names) for c, names in classes.items()})
            faults = attack.FAULTS[kind in attacked_sweep.SEALED]
            bad += [f"{verb}, {kind}: {c}: {name}" for c in faults for name in classes[c]]
    table.add_row("all", f"{total.total():,} cases", *(str(total[c]) for c in attack.CLASSES))
    Console().print(table)
    for fault in bad:
        print(fault)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
