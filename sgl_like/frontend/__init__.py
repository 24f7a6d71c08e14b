"""The DSL: programs of language-model calls, compiled to operations on a backend."""
