"""The engine's process, and what the front process knows of it."""
