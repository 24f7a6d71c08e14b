"""SGLang's own API, and what vLLM and others have beside OpenAI's."""
