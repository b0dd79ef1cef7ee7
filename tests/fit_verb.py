"""The verb fit, called on a small table whose law is known."""

import numpy as np
import pandas as pd

from moe_jax import laws
from moe_jax.cli import command, fit


def runs(noise=0.005):
    """results.csv of a small grid, losses from krajewski2024's published law with noise."""
    N, D, G = (x.ravel() for x in np.meshgrid([1e8, 3e8, 1e9, 3e9], [4e9, 2e10, 1e11], [1, 4, 16], indexing="ij"))
    loss = laws.published("krajewski2024").loss_at({"N": N, "D": D, "G": G})
    loss *= np.exp(noise * np.random.default_rng(0).standard_normal(loss.shape))
    return pd.DataFrame(
        {
            "name": [f"n{i}" for i in range(len(N))],
            "status": "done",
            "n_total_nonemb": N,
            "tokens": D,
            "granularity": G,
            "expansion_rate": 64,
            "router": "expert_choice",
            "eval_loss": loss,
        }
    )


def call(tmp_path, table, *flags):
    table.to_csv(tmp_path / "results.csv", index=False)
    return command.run(fit.main, ["--workdir", str(tmp_path), "--bootstrap", "20", "--starts", "64", *flags])
