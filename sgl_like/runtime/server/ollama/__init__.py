"""Ollama's API: ``/api/...``."""
