"""The command line: `sgl-like extract` and `sgl-like demo`."""
