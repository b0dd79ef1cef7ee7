"""reproduce: pages that are whole with and without third-party losses and runs of ours, and say what the papers say."""

import numpy as np
import pandas as pd
import pytest

from moe_jax import errors, laws
from moe_jax.cli import collect, command, reproduce
from moe_jax.report.papers.abnar2025.budget import SPARSITIES, loss_at_budget, slice_minima
from moe_jax.report.papers.sources import Sources, reference_folder
from tests import synthetic_sweep as synthetic
from tests.pages import Reader
from tests.reference import needs_reference


def call(paper, out, *flags):
    assert command.run(reproduce.main, [paper, "--out", str(out), *map(str, flags)]) == errors.DONE
    page = Reader((out / "page.html").read_text())
    assert all(link.startswith(("#", "data:")) for link in page.links)  # nothing from elsewhere
    assert len(list((out / "figures").iterdir())) == page.tags.count("img") >= 1
    return page


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    monkeypatch.setenv("MOE_JAX_REFERENCE", str(tmp_path / "nowhere"))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """27 runs and two dense ones whose losses come from a planted law."""
    cells = [*synthetic.cells(), {"moe": None, "model.d_model": 16}, {"moe": None, "model.d_model": 32}]
    work, planned = synthetic.make(tmp_path_factory.mktemp("reproduce") / "w", cells)
    for run in planned:
        synthetic.finish(work, run)
    assert collect.main(["--workdir", str(work.path)]) == 0
    return work.path


@needs_reference
def test_krajewski2024_beside_third_party_losses(tmp_path, capsys):
    page = call("krajewski2024", tmp_path)
    said = capsys.readouterr().out
    assert "18.3 times the FLOPs at 1e20 and 26.4 times at 1e25" in said and "above 40 times" in said
    assert "G = 1 needs 1.89 times" in said
    assert "RMSE 0.0153 nats; 0.0195 on the 20% lowest, held out" in said
    titles = [
        "Table 1:",
        "Table 2:",
        "Table 5",
        "Table 6:",
        "Table 8:",
        "Table 9:",
        "Figure 1:",
        "Figure 3:",
        "Figure 4:",
    ]
    assert all(title in page.text for title in [*titles, "Figure 6:", "Figure 7:", "Not reproduced"])
    assert "64×300B printed 2.96T 64 5.69e+24 1.503 unrounded 2.963T 64 5.7e+24 1.505" in page.text
    assert "64×1B 21.17B–40.73B 16–16 28.9B (" in page.text  # its interval follows, from the bootstrap
    assert "Table 3: MoE, E = 64 78 78" in page.text and "Table 7: MoE, E = 16 68 68" in page.text


def test_krajewski2024_with_runs_of_ours_alone(tmp_path, nowhere, sweep, capsys):
    page = call("krajewski2024", tmp_path, "--workdir", sweep)
    assert "Third-party losses are not at" in page.text and "our runs (27 runs; dense none)" in page.text
    assert "Our runs, dense: 2 rows cannot determine 4 coefficients" in page.text
    assert {"figure1.png", "ours_loss_against_g.png", "ours_loss_against_n.png"} == {
        p.name for p in (tmp_path / "figures").iterdir()
    }
    assert "Our 27 runs give this law with an RMSE of" in capsys.readouterr().out


@pytest.mark.parametrize("paper", ["krajewski2025", "joint_moe2025"])
def test_other_papers_with_runs_of_ours(tmp_path, nowhere, sweep, paper):
    page = call(paper, tmp_path, "--workdir", sweep)
    assert "Not reproduced" in page.text
    if paper == "krajewski2025":
        assert "11B, 1×FLOPs-G8 64 8 2.183 50.6% secondary" in page.text
        assert "in 9 of 9 pairs" in page.text
        assert "11.1B" in page.text and "55.8B" in page.text and "derived" in page.text
    if paper == "joint_moe2025":
        assert "32 669M" in page.text and "19.02 19" in page.text  # printed, then computed


def test_abnar2025_trends():
    """The best sparsity of a size falls with the budget; the best size grows with sparsity; its active part shrinks."""
    law = laws.published("abnar2025")

    def best_sparsity(C, N):
        return SPARSITIES[loss_at_budget(law, C, N, SPARSITIES).argmin()]

    expected = {
        (3e19, 2e8): 0.73,
        (3e19, 5e8): 0.88,
        (3e19, 1e9): 0.93,
        (1e21, 2e8): 0,
        (1e21, 5e8): 0.36,
        (1e21, 1e9): 0.62,
    }
    assert {at: best_sparsity(*at) for at in expected} == pytest.approx(expected, abs=0.01)
    N, losses = slice_minima(law, 1e20, "N_a = N(1 − S)")
    at = [np.abs(SPARSITIES - S).argmin() for S in (0, 0.9, 0.98)]
    assert N[at] == pytest.approx([6.4e8, 4.0e9, 1.7e10], rel=0.03)
    assert losses[at] == pytest.approx([2.589, 2.364, 2.271], abs=0.002)


def test_abnar2025_surfaces_of_our_runs(tmp_path, nowhere):
    """Two budgets, seven sparsities: table 3's column and figures 6 and 8 are filled."""
    rng, law = np.random.default_rng(0), laws.published("abnar2025")
    N, S, C = (a.ravel() for a in np.meshgrid(np.geomspace(2e8, 2e10, 6), [0, 0.5, 0.75, 0.9, 0.95], [1e20, 1e21]))
    D = C / (6 * N * (1 - S))
    loss = law.loss_at({"N": N, "S": S, "D": D}) * np.exp(0.002 * rng.standard_normal(len(N)))
    runs = {"n_total": N, "n_total_nonemb": N, "sparsity": S, "flops_abnar2025": C, "tokens": D, "eval_loss": loss}
    table = pd.DataFrame(runs).assign(status="done", granularity=1, expansion_rate=1 / (1 - S))
    table.to_csv(tmp_path / "results.csv", index=False)
    page = call("abnar2025", tmp_path / "out", "--workdir", tmp_path)
    assert "our runs (60 runs)" in page.text
    assert "1B 20B 0.98 2.89776" in page.text and "it has an optimum at S = 0.7" in page.text
    assert {"figure6_ours.png", "figure8_ours.png"} <= {p.name for p in (tmp_path / "out" / "figures").iterdir()}


def test_what_reproduce_refuses(tmp_path, capsys, sweep):
    for flags, sentence in [
        (["nobody1900"], "invalid choice"),
        (["abnar2025", "--workdir", str(tmp_path)], "results.csv; `moe-jax collect` writes one"),
    ]:
        assert command.run(reproduce.main, flags) == errors.BAD_INPUT
        assert sentence in capsys.readouterr().err
    table = pd.read_csv(sweep / "results.csv")
    table.assign(status="failed").to_csv(tmp_path / "results.csv", index=False)
    assert command.run(reproduce.main, ["abnar2025", "--workdir", str(tmp_path)]) == errors.BAD_INPUT
    assert "no run of" in capsys.readouterr().err
    table.drop(columns="sparsity").to_csv(tmp_path / "results.csv", index=False)
    assert command.run(reproduce.main, ["abnar2025", "--workdir", str(tmp_path)]) == errors.BAD_INPUT
    assert "has no column 'sparsity'" in capsys.readouterr().err
    (tmp_path / "finegrained_moe_losses_recovered.csv").write_bytes(b"")
    with pytest.raises(errors.UserError, match="is not a readable CSV"):
        Sources("krajewski2024", tmp_path).third_party("finegrained_moe_losses_recovered.csv")


def test_where_third_party_losses_are_looked_for(monkeypatch):
    monkeypatch.delenv("MOE_JAX_REFERENCE", raising=False)
    assert reference_folder().parts[-2:] == ("shared", "reference")
