"""Constrained generation with `transformers`, without our engine: `sgl_like.runtime.constrain` on its own.

    python examples/transformers_processor.py [MODEL_FOLDER]

A `LogitsProcessor` for a batch, each row held to the same JSON Schema. All that the constraint engine needs to know
about a tokenizer is what its tokens are as bytes; a compiled grammar is shared by all rows and all later requests.

Anything else that has logits works the same way. With numpy alone, one output is:

    matcher = compiler.compile_json_schema(schema).matcher()
    mask = np.zeros((1, mask_words(matcher.vocab_size)), np.int32)
    output = []
    while not matcher.is_terminated:
        matcher.fill_mask(mask, 0)
        allowed = np.unpackbits(mask[0].view(np.uint8), bitorder="little")[: matcher.vocab_size]
        logits = np.where(allowed, next_logits(output), -np.inf)
        token = int(logits.argmax())
        matcher.accept_token(token)
        output.append(token)

To bound the length, end with `matcher.shortest_completion()`; to skip model calls, append what
`matcher.forced_tokens()` returns.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList

import sgl_like
from sgl_like.runtime.constrain.base import Matcher, mask_words
from sgl_like.runtime.constrain.compiler import Grammar, GrammarCompiler
from sgl_like.runtime.constrain.vocabulary import Vocabulary
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer

ASSETS = Path(sgl_like.__file__).parent / "assets"
UTTERANCES = ["book a table for two in Lisbon at noon", "play the album Blue Hill by The Owls"]


class ConstraintProcessor(LogitsProcessor):
    """Masks the logits of a batch so that every row's output stays within a grammar.

    For one call of `generate` without beams: rows are followed in place, each by a matcher of its own.

    Args:
        grammar: what all rows are held to.
        prompt_tokens: length of the prompts, padding included; the outputs start after it.
    """

    def __init__(self, grammar: Grammar, prompt_tokens: int) -> None:
        self.grammar = grammar
        self.seen = prompt_tokens
        self.matchers: list[Matcher] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Set the scores of tokens that are not allowed to minus infinity.

        Args:
            input_ids: int64 [batch, prompt_tokens + generated].
            scores: float [batch, vocab], of the next token.
        """
        if not self.matchers:
            self.matchers = [self.grammar.matcher() for _ in input_ids]
        for matcher, tokens in zip(self.matchers, input_ids[:, self.seen :].tolist(), strict=True):
            for token in tokens:
                # A row that has ended is padded until the others have too.
                if not matcher.is_terminated and not matcher.accept_token(token):
                    raise ValueError(f"token {token} was sampled although the mask did not allow it")
        self.seen = input_ids.shape[1]

        packed = np.zeros((len(self.matchers), mask_words(self.matchers[0].vocab_size)), np.int32)
        for row, matcher in enumerate(self.matchers):
            matcher.fill_mask(packed, row)  # of an ended row: end of sequence only
        bits = np.unpackbits(packed.view(np.uint8), axis=1, count=scores.shape[1], bitorder="little")
        allowed = torch.from_numpy(bits).to(scores.device, torch.bool)  # [batch, vocab]
        return scores.masked_fill(~allowed, -torch.inf)


def make_compiler(folder: Path, vocab_size: int) -> GrammarCompiler:
    """A compiler for the tokenizer in a model folder.

    Args:
        folder: where ``tokenizer.json`` lies.
        vocab_size: width of the model's logits; ids without a token are never allowed.
    """
    tokenizer = Tokenizer(folder, vocab_size)
    return GrammarCompiler(
        Vocabulary(tokenizer.token_bytes, tokenizer.eos_token_ids, tokenize=tokenizer.encode_continuation)
    )


def extract(
    folder: Path, utterances: Sequence[str], schema: dict[str, Any], max_new_tokens: int = 256
) -> list[str]:
    """JSON texts for some utterances, generated in one greedy batch; one that is cut off is not complete."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    compiler = make_compiler(folder, model.config.vocab_size)
    grammar = compiler.compile_json_schema(schema, property_order="any")
    chats = [
        [
            {"role": "system", "content": "Turn the utterance into JSON."},
            {"role": "user", "content": utterance},
        ]
        for utterance in utterances
    ]
    prompts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    length = inputs["input_ids"].shape[1]
    outputs = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        logits_processor=LogitsProcessorList([ConstraintProcessor(grammar, length)]),
        max_new_tokens=max_new_tokens,
        do_sample=False,
    )
    texts: list[str] = tokenizer.batch_decode(outputs[:, length:], skip_special_tokens=True)
    return texts


def main(arguments: list[str]) -> None:
    folder = Path(arguments[0]) if arguments else ASSETS / "tiny"
    schema = json.loads((ASSETS / "demo" / "snips.schema.json").read_text("utf-8"))
    for utterance, text in zip(UTTERANCES, extract(folder, UTTERANCES, schema), strict=True):
        print(f"{utterance}\n    {text}")


if __name__ == "__main__":
    main(sys.argv[1:])
