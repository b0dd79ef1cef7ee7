"""Third-party losses, for the tests that need them: what published coefficients were fitted to."""

import pandas as pd
import pytest

from moe_jax.report.papers.sources import reference_folder

REFERENCE = reference_folder()
needs_reference = pytest.mark.skipif(
    not REFERENCE.exists(), reason=f"third-party losses are not at {REFERENCE}; MOE_JAX_REFERENCE says where they are"
)


def table_3():
    """The 75 runs of krajewski2024's Table 3 whose losses were recovered."""
    runs = pd.read_csv(REFERENCE / "finegrained_moe_losses_recovered.csv")
    return runs[runs.in_paper_table3 == 1]
