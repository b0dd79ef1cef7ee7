"""Papers' numbers computed again: from published coefficients, from third-party losses, and from our own runs.

A paper is a module with `TITLE`, `NEEDS` (columns of our runs) and `reproduce(sources)`: sentences, and an iterator
over its items, the tables and figures in the paper's order. May import config, laws and the rest of report.

  krajewski2024, krajewski2025, abnar2025, joint_moe2025: one paper each
  sources   printed numbers, third-party losses, our runs
  refits    a paper's law fitted to other runs
  item      a table or figure of a paper
  page      the page of a paper
"""

PAPERS = ("krajewski2024", "krajewski2025", "abnar2025", "joint_moe2025")
