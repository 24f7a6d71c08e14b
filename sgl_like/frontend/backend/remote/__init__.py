"""Backends on other machines and of other makers: servers that speak HTTP.

codec        the ids that stand for text, and the messages or the text that a prompt amounts to
dialect      how an engine spells parameters and constraints; `dialects` has the table of them
wire         how a prompt goes into a request and how answers are read: `openai_wire`, `native_wire`, ...
request      a call of the DSL as the body of a request, or an error that says what would work
http, loop   requests with retries and timeouts, on one event loop of this process
backend      the three together, as a `Backend`; `clients` and `runtime_endpoint` are what users make
"""
