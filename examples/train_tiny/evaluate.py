"""Scores of a model: dev rows by unconstrained greedy decoding, puzzles by greedy decoding and by pass@n.

    python examples/train_tiny/evaluate.py --model sgl_like/assets/tiny --data .../snips/train.jsonl

A row's prediction is read with json.loads; anything that does not parse is wrong.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from formats import END, JSON_SYSTEM, PUZZLE_SYSTEM, SPECIAL_TOKENS, chat_prompt, json_answer, reach_prompt
from model import Llama, Shape, generate
from prepare import Row, ordered, read_rows, split_rows
from puzzles import draw_puzzle, labelled_can, labelled_check, passes
from safetensors.torch import load_file
from tokenizers import Tokenizer

CHUNK = 64  # prompts decoded together: their keys and values stay in the processor's cache


class Scores(NamedTuple):
    """Shares in 0..1 over the dev rows."""

    intent: float
    slot_f1: float
    exact: float


class PuzzleScores(NamedTuple):
    """Shares in 0..1 over held-out puzzles of one size."""

    greedy: float
    sample: float  # mean over samples at temperature 0.8
    pass_at_8: float


def complete(
    model: Llama,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    limit: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """Answers to prompts, decoded in batches of equal prompt length."""
    device = next(model.parameters()).device
    groups: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for i, coded in enumerate(tokenizer.encode_batch(list(prompts), add_special_tokens=False)):
        groups[len(coded.ids)].append((i, coded.ids))
    answers = [""] * len(prompts)
    noise = torch.Generator(device).manual_seed(seed)
    chunks = [group[i : i + CHUNK] for group in groups.values() for i in range(0, len(group), CHUNK)]
    for group in chunks:
        ids = torch.tensor([coded for _, coded in group], device=device)
        ends = generate(model, ids, SPECIAL_TOKENS.index(END), limit, temperature, noise)
        for (i, _), answer in zip(group, ends, strict=True):
            answers[i] = tokenizer.decode(answer, skip_special_tokens=False)
    return answers


def read_answer(answer: str) -> dict[str, str]:
    """The flat object of an answer, {} if it is not one."""
    try:
        found = json.loads(answer)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def score(rows: Sequence[Row], answers: Sequence[str]) -> Scores:
    """Intent accuracy, micro F1 of exact (name, value) pairs, and share of wholly right rows."""
    intents = exact = hits = predicted = expected = 0
    for row, answer in zip(rows, answers, strict=True):
        found = read_answer(answer)
        intent = found.pop("intent", None)
        right = sum(found.get(name) == value for name, value in row["slots"].items())
        hits, predicted, expected = hits + right, predicted + len(found), expected + len(row["slots"])
        intents += intent == row["intent"]
        exact += intent == row["intent"] and found == row["slots"]
    return Scores(intents / len(rows), 2 * hits / max(1, predicted + expected), exact / len(rows))


@torch.no_grad()
def greedy_is(model: Llama, tokenizer: Tokenizer, prompt: str, answer: str) -> bool:
    """Whether greedy decoding gives this answer: one pass instead of one per token."""
    device = next(model.parameters()).device
    head = tokenizer.encode(prompt, add_special_tokens=False).ids
    tail = tokenizer.encode(answer + END, add_special_tokens=False).ids
    logits, _ = model(torch.tensor([head + tail[:-1]], device=device))
    return bool(logits[0, len(head) - 1 :].argmax(-1).tolist() == tail)


def score_rows(model: Llama, tokenizer: Tokenizer, rows: Sequence[Row]) -> tuple[Scores, list[str]]:
    """Greedy scores of a model in eval mode, and its answers; only rows not wholly right are decoded."""
    prompts = [chat_prompt(row["text"], JSON_SYSTEM) for row in rows]
    answers = [json_answer(row["intent"], row["slots"]) for row in rows]
    wrong = [i for i in range(len(rows)) if not greedy_is(model, tokenizer, prompts[i], answers[i])]
    for i, answer in zip(wrong, complete(model, tokenizer, [prompts[i] for i in wrong], 120), strict=True):
        answers[i] = answer
    return score(rows, answers), answers


def score_puzzles(
    model: Llama, tokenizer: Tokenizer, size: int, count: int = 100, samples: int = 8
) -> PuzzleScores:
    """Scores on puzzles of `size` numbers, held out from training if these are 3 or 4."""
    rng = random.Random(size)
    puzzles = [draw_puzzle(rng, size, held=size > 2) for _ in range(count)]
    prompts = [chat_prompt(reach_prompt(*puzzle), PUZZLE_SYSTEM) for puzzle in puzzles]
    greedy = [passes(*p, a) for p, a in zip(puzzles, complete(model, tokenizer, prompts, 90), strict=True)]
    drawn = complete(model, tokenizer, [p for p in prompts for _ in range(samples)], 90, temperature=0.8)
    good = [passes(*puzzles[i // samples], answer) for i, answer in enumerate(drawn)]
    solved = [any(good[i : i + samples]) for i in range(0, len(good), samples)]
    return PuzzleScores(sum(greedy) / count, sum(good) / len(good), sum(solved) / count)


def score_judgements(model: Llama, tokenizer: Tokenizer, count: int = 300) -> dict[str, float]:
    """Accuracy of the value question and the self-check on new puzzles (both balanced)."""
    rng = random.Random(7)
    cans = [labelled_can(rng) for _ in range(count)]
    checks = [labelled_check(rng) for _ in range(count)]
    result = {}
    for name, examples in (("can", cans), ("check", checks)):
        prompts = [chat_prompt(example.user, PUZZLE_SYSTEM) for example in examples]
        answers = complete(model, tokenizer, prompts, 4)
        result[name] = sum(a == e.answer for a, e in zip(answers, examples, strict=True)) / count
    return result


def load_model(folder: Path) -> tuple[Llama, Tokenizer]:
    """The exported model in float32, and its tokenizer."""
    model = Llama(Shape())
    weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    model.load_state_dict(weights)
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def main() -> None:
    """Print all scores of an exported model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--errors", type=int, default=0, help="show this many wrong answers")
    args = parser.parse_args()
    model, tokenizer = load_model(args.model)
    dev = split_rows([ordered(row) for row in read_rows(args.data)]).dev
    scores, answers = score_rows(model, tokenizer, dev)
    print(scores)
    wrong = [(row, a) for row, a in zip(dev, answers, strict=True) if score([row], [a]).exact < 1]
    for row, answer in wrong[: args.errors]:
        print(f"{row['text']}\n  want {row['intent']} {row['slots']}\n  got  {answer}")
    for size in (2, 3, 4):
        print(size, "numbers", score_puzzles(model, tokenizer, size))
    print(score_judgements(model, tokenizer))


if __name__ == "__main__":
    main()
