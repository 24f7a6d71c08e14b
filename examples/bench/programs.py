"""The programs that `programs_bench.py` times. Their docstrings say what is shared, forced and run side by side.

Texts are made-up words from a fixed seed; outputs have fixed lengths, or those that a schema gives them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import sgl_like as sgl

TEXT = (
    "the order was late and we asked for a reply about price size colour delivery return model number street "
    "monday letter water light green music train paper engine garden window small large quick open every other"
)
WORDS = TEXT.split()
LABELS = ["praise", "complaint", "question", "return of goods"]
AMOUNTS = ["none", "one", "several", "many"]  # as words: 1.0 is an integer too, but llama.cpp does not know
FIELDS: dict[str, Any] = {
    "customer_segment": {"enum": ["new", "returning", "wholesale"]},
    "preferred_contact_channel": {"enum": ["email", "phone", "letter"]},
    "requires_human_review": {"type": "boolean"},
    "delivery_was_late": {"type": "boolean"},
    "number_of_items_ordered": {"enum": AMOUNTS},
    "number_of_items_returned": {"enum": AMOUNTS},
    "product_category": {"enum": ["furniture", "clothing", "music", "garden"]},
    "payment_method": {"enum": ["invoice", "card", "transfer"]},
    "overall_satisfaction": {"enum": ["low", "medium", "high"]},
    "mentions_competitor": {"type": "boolean"},
    "shipping_country_code": {"type": "string", "pattern": "^[A-Z]{2}$"},
    "follow_up_within_days": {"enum": AMOUNTS},
}
SCHEMA = {"type": "object", "properties": FIELDS, "required": list(FIELDS), "additionalProperties": False}


def prose(seed: object, words: int) -> str:
    """So many words, always the same for a seed."""
    return " ".join(random.Random(str(seed)).choices(WORDS, k=words))


class Size(NamedTuple):
    """How much work: tokens of an output, words of a shared text and of one's own, and how many of everything."""

    new: int
    stem: int
    own: int
    branching: int
    depth: int
    conversations: int
    turns: int
    tasks: int
    questions: int
    samples: int
    rows: int


FULL = Size(24, 320, 24, 4, 3, 4, 8, 6, 6, 8, 16)
SMALL = Size(4, 24, 6, 2, 2, 2, 2, 2, 2, 2, 2)


@sgl.function
def tree_of_thought(s: Any, size: Size) -> None:
    """A tree of forks: every thought goes on from the one before it and shares everything up to there."""
    s += prose("problem", size.stem)
    _think(s, size, size.depth)


def _think(s: Any, size: Size, depth: int) -> None:
    forks = s.fork(size.branching)
    forks += lambda i: f"\nIdea {i + 1} of step {depth}: "
    forks += sgl.gen("thought", max_tokens=size.new, ignore_eos=True)
    if depth > 1:
        for fork in forks:
            _think(fork, size, depth - 1)
    forks.join()


@sgl.function
def chat(s: Any, size: Size, who: int) -> None:
    """A conversation: every turn goes on from all turns before it; conversations share the system message."""
    s += sgl.system(prose("system", size.stem // 4))
    for turn in range(size.turns):
        s += sgl.user(prose((who, turn), size.own))
        s += sgl.assistant(sgl.gen(f"answer{turn}", max_tokens=size.new, ignore_eos=True))


@sgl.function
def classify(s: Any, size: Size, task: int, question: int) -> None:
    """Few-shot classification: a task's questions share its examples; `select` scores four labels."""
    s += prose(("examples", task), size.stem)
    s += f"\nText: {prose((task, question), size.own)}\nLabel: " + sgl.select("label", LABELS)


@sgl.function
def extract(s: Any, size: Size, row: int) -> None:
    """JSON with many keys: most of the output is forced by the schema; rows share the instruction."""
    s += f"{prose('instruction', size.stem // 4)}\nFields: {', '.join(FIELDS)}\n"
    s += f"Message: {prose(('message', row), 2 * size.own)}\nJSON: "
    s += sgl.gen("json", max_tokens=512, json_schema=json.dumps(SCHEMA))


@sgl.function
def self_consistency(s: Any, size: Size) -> None:
    """Several samples of one prompt."""
    s += prose("question", size.stem) + "\nAnswer: "
    s += sgl.gen("answers", max_tokens=2 * size.new, ignore_eos=True, n=size.samples, temperature=0.7, seed=1)


class Program(NamedTuple):
    """A program, the KV slots that it gets, and its runs: one dict of arguments each, all side by side."""

    function: Any
    slots: int
    runs: Callable[[Size], list[dict[str, Any]]]


def _questions(size: Size) -> list[dict[str, Any]]:
    found = [{"task": task, "question": q} for task in range(size.tasks) for q in range(size.questions)]
    random.Random(0).shuffle(found)
    return found


PROGRAMS = {
    "tree of thought": Program(tree_of_thought, 8192, lambda size: [{}]),
    "multi-turn chat": Program(chat, 8192, lambda size: [{"who": i} for i in range(size.conversations)]),
    "few-shot select": Program(classify, 1536, _questions),  # all examples together do not fit
    "JSON extraction": Program(extract, 8192, lambda size: [{"row": i} for i in range(size.rows)]),
    "self-consistency": Program(self_consistency, 8192, lambda size: [{}]),
}


def run(name: str, backend: Any, size: Size) -> None:
    """Run all of a program's runs to their end.

    Raises:
        SglError: one of them failed.
    """
    program = PROGRAMS[name]
    rows = [{"size": size, **row} for row in program.runs(size)]
    program.function.run_batch(rows, backend=backend, temperature=0, on_error="raise")
