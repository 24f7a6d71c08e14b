"""Backends of the DSL: what a program state talks to."""
