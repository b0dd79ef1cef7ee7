"""What the papers printed, computed again: from published coefficients, third-party losses, and our own runs.

A paper is a module with `TITLE`, `NEEDS` and `reproduce(sources)`: sentences, and an iterator over its tables and
figures in the paper's order."""

PAPERS = ("krajewski2024", "krajewski2025", "abnar2025", "joint_moe2025")
