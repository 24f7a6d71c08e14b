"""Networks over the KV pool, and loading them from Hugging Face folders."""
