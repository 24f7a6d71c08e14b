"""A pushdown machine of small automata ("frames") over bytes: JSON values inside JSON values."""
