"""OpenAI's API, with the extensions of vLLM and SGLang under their names."""
