"""Constraints: regex and JSON Schema to byte automata to packed token masks."""
