"""How the body of a program is run: threads, event loops, programs in programs, hooks."""
