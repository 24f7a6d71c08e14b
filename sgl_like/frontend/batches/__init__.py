"""How many runs of a program are run: rows, retries, checkpoints."""
