"""Constraints: regex, JSON Schema, grammars and structural tags to byte automata to packed token masks."""
