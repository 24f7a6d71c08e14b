"""KV slots and the radix tree that decides whose prefix stays in them."""
