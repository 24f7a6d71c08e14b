"""The byte-level BPE tokenizer (4096 tokens), cut so that copying is easy.

A word has the same tokens in the utterance and in the JSON answer: a space is a token of its own, digits and
punctuation marks are single, and a JSON key with the quotes around it is one pre-token (`","artist":"`).
Bytes make any text round-trip; nothing is added or normalised.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from formats import CHAT_TEMPLATE, END, JSON_SYSTEM, PAD, PUZZLE_SYSTEM, SPECIAL_TOKENS, json_answer
from prepare import Row
from puzzles import draw_example
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 4096
MAX_POSITIONS = 1024
PATTERN = r'\{"[a-z_]+":"|","[a-z_]+":"|"\}|[\p{L}\p{M}]+|[^\p{L}\p{M}]'


def _corpus(rows: Sequence[Row], seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    for row in rows:
        yield row["text"]
        yield json_answer(row["intent"], row["slots"])
        yield rng.choice((row["text"].lower(), row["text"].title()))
    for _ in range(2000):
        yield "\n".join(draw_example(rng))
    yield from (JSON_SYSTEM, PUZZLE_SYSTEM) * 2000


def train_tokenizer(rows: Sequence[Row], seed: int = 0) -> Tokenizer:
    """Train on training rows (casing variants included) and puzzles; deterministic."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(rows, seed), trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_POSITIONS,
        "eos_token": END,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
