"""The tables on the benchmarks' page are those of the file beside it."""

from experiments.benchmarks import bench_page, results
from experiments.benchmarks.results import Results


def test_a_page_is_filled_with_its_tables():
    formats = {"what": "", "ms": ",.1f", "of the limit": ".0%"}
    rows = [{"what": "ours", "ms": 1234.56, "of the limit": 0.75}, {"what": "peer", "ms": 2.0}]
    measured = {
        "command": "python -m x", "date": "2026-11-30", "seconds": 5,
        "machine": {"processor": "P, 2 cores", "python": "3", "jax": "0.10"},
        "tables": [{"title": "small", "formats": formats, "rows": rows}],
    }  # fmt: skip
    page = "before\n\n<!-- bench: x -->\nold\n<!-- end -->\nafter\n"
    filled = bench_page.filled(page, {"x": measured})
    assert filled == (
        "before\n\n<!-- bench: x -->\n`python -m x`, 2026-11-30, 5 s; P, 2 cores; python 3, jax 0.10.\n\nsmall\n\n"
        "| what | ms | of the limit |\n| --- | --- | --- |\n| ours | 1,234.6 | 75% |\n| peer | 2.0 | – |\n\n"
        "<!-- end -->\nafter\n"
    )
    assert bench_page.filled(filled, {"x": measured}) == filled


def test_tables_are_kept_as_they_are_shown(tmp_path, capsys):
    tables = [Results("one", {"a": ".2f"}, [{"a": 1.5}, {}]), Results("two", {"b": ""}, [{"b": "x"}])]
    for table in tables:
        results.show(table, tmp_path / "tables.jsonl")
    assert results.read(tmp_path / "tables.jsonl") == tables
    out = capsys.readouterr().out
    assert all(said in out for said in ("one", "1.50", "–", "two", "x"))
