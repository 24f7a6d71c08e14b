"""What a program state can do, one kind of operation per file."""
