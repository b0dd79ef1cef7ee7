"""Text -> token store -> batches. Only `prepare` writes; training reads the store and nothing else."""
