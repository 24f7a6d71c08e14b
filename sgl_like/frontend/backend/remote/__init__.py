"""Backends on other machines and of other makers: servers that speak HTTP.

codec        the ids that stand for text, and the messages or the text that a prompt amounts to
wire         how a prompt goes into a request and how answers are read; `openai_wire` is that of most engines
dialect      how an engine spells parameters and constraints
engines      the dialects, and the wires that one engine alone has
detect       which of them a server runs
request      a call of the DSL as the body of a request, or an error that says what would work
http, loop   requests with retries and timeouts, on one event loop of this process; `sse` reads streams
scoring      log-probabilities of choices
backend      all of it together, as a `Backend`; `clients` and `runtime_endpoint` are what users make
"""
