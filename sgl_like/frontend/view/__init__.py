"""What a run did: a log kept while it runs, a trace made of it, and ways to show that."""
