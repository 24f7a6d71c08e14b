"""Token batches: one epoch of fresh variants and puzzles, bucketed by length."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from augment import Augmenter
from formats import END, JSON_SYSTEM, PUZZLE_SYSTEM, SPECIAL_TOKENS, USER, chat_prompt, json_answer
from puzzles import draw_example
from tokenizers import Tokenizer
from torch import Tensor


class Mix(NamedTuple):
    """What an epoch is made of."""

    puzzles: int = 9000  # per epoch
    no_system: float = 0.1  # share of examples without system message
    prompt_share: float = 0.25  # share of user tokens that are learned from as well (utterances only)
    verdict: int = 6  # weight of an answer of one token (yes, no, correct, wrong)
    tokens: int = 6600  # per batch, padding included


class Batch(NamedTuple):
    """Right-padded ids [rows, length], and the flat positions in ids[:, 1:] that count in the loss."""

    ids: Tensor
    where: Tensor


class Coded(NamedTuple):
    """One example: token ids, and the indices of those to predict (listed n times: weight n)."""

    ids: list[int]
    learned: list[int]


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [coded.ids for coded in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def epoch(data: Augmenter, tokenizer: Tokenizer, mix: Mix, rng: random.Random) -> list[Coded]:
    """Every row once, as itself or as a variant, and `mix.puzzles` new puzzles."""
    prompts, answers, shares = [], [], []
    for index in range(len(data.rows)):
        row = data.variant(index, rng)
        prompts.append(chat_prompt(row["text"], JSON_SYSTEM if rng.random() >= mix.no_system else None))
        answers.append(json_answer(row["intent"], row["slots"]) + END)
        shares.append(mix.prompt_share)
    for _ in range(mix.puzzles):
        example = draw_example(rng)
        prompts.append(chat_prompt(example.user, PUZZLE_SYSTEM if rng.random() >= mix.no_system else None))
        answers.append(example.answer + END)
        shares.append(0.0)
    coded = []
    user = SPECIAL_TOKENS.index(USER)
    for prompt, answer, share in zip(
        _encode(tokenizer, prompts), _encode(tokenizer, answers), shares, strict=True
    ):
        learned = [i for i in range(prompt.index(user) + 1, len(prompt) - 1) if rng.random() < share]
        learned += range(len(prompt), len(prompt) + len(answer))
        learned += [len(prompt)] * (mix.verdict - 1 if len(answer) == 2 else 0)
        coded.append(Coded(prompt + answer, learned))
    return coded


def batches(examples: Sequence[Coded], mix: Mix, rng: random.Random) -> Iterator[Batch]:
    """All examples, near-equal lengths together, in random order of batches."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].ids) + 2 * rng.random())
    groups: list[list[Coded]] = [[]]
    for i in order:
        if (len(groups[-1]) + 1) * len(examples[i].ids) > mix.tokens:
            groups.append([])
        groups[-1].append(examples[i])
    rng.shuffle(groups)
    for group in groups:
        length = max(len(example.ids) for example in group)
        ids = torch.zeros(len(group), length, dtype=torch.long)
        where = []
        for row, example in enumerate(group):
            ids[row, : len(example.ids)] = torch.tensor(example.ids)
            where += [row * (length - 1) + i - 1 for i in example.learned]
        yield Batch(ids, torch.tensor(where))
