"""The constraint engine on its own, in a loop with numpy: no model, no tokenizer, no torch.

    python examples/numpy_loop.py

What the engine knows about a model is its vocabulary: the bytes of every token, and which ids end an output. Here the
vocabulary is the 256 bytes and one id for the end, and the "model" draws its logits from a random number generator. In
each step the mask of allowed tokens goes over the logits and the token that was chosen goes back into the matcher.
"""

from __future__ import annotations

import json
import re

import numpy as np

from sgl_like.runtime.constrain.base import mask_words
from sgl_like.runtime.constrain.compiler import Grammar, GrammarCompiler
from sgl_like.runtime.constrain.vocabulary import Vocabulary

EOS = 256
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "pattern": "^[A-Z][a-z]{2,8}$"},
        "nights": {"type": "integer", "minimum": 1, "maximum": 30},
        "stars": {"type": "array", "items": {"enum": [1, 2, 3, 4, 5]}, "maxItems": 3},
    },
    "required": ["city", "nights"],
    "additionalProperties": False,
}
REGEX = r"(0[1-9]|1[0-2])/[0-9]{2}"


def make_compiler() -> GrammarCompiler:
    """A compiler for the vocabulary of bytes; one serves all constraints, and keeps what it compiled."""
    return GrammarCompiler(Vocabulary([*(bytes([byte]) for byte in range(256)), None], [EOS]))


def generate(grammar: Grammar, seed: int, max_tokens: int = 100) -> bytes:
    """One output of the grammar, whole even if the tokens run out."""
    model = np.random.default_rng(seed)
    matcher = grammar.matcher()  # follows this output; cheap, while the grammar is shared by all outputs
    packed = np.zeros((1, mask_words(matcher.vocab_size)), np.int32)  # a batch of one: one bit for each token
    output = b""
    for _ in range(max_tokens):
        logits = model.normal(size=matcher.vocab_size)  # the forward pass goes here
        matcher.fill_mask(packed, 0)
        allowed = np.unpackbits(packed[0].view(np.uint8), count=matcher.vocab_size, bitorder="little")
        token = int(np.where(allowed, logits, -np.inf).argmax())
        matcher.accept_token(token)
        if token == EOS:  # the mask allows it only where the output is complete
            return output
        output += bytes([token])
        # What can be said in one way only need not be sampled. With a tokenizer, `forced_tokens` gives token ids.
        forced = matcher.forced_bytes()
        matcher.accept_bytes(forced)
        output += forced
    return output + matcher.shortest_completion()


def main() -> None:
    compiler = make_compiler()
    for seed in range(3):
        text = generate(compiler.compile_regex(REGEX), seed).decode()
        assert re.fullmatch(REGEX, text)
        print(text)
    for seed in range(3):
        text = generate(compiler.compile_json_schema(SCHEMA), seed).decode()
        print(json.loads(text))


if __name__ == "__main__":
    main()
