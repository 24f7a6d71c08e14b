"""`sgl-like bench`: load for any server that speaks OpenAI's or SGLang's HTTP API, and what came of it."""
