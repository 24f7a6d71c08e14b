"""What is particular to each engine: its dialect, and its wire if it has one of its own."""
