"""The runtime: tokenizer, cache, constraints, sampling, models and the engine that joins them."""
