"""The server: HTTP in front, the engine in a process of its own behind it. ARCHITECTURE.md has the picture."""
