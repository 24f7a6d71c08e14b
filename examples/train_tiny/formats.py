"""Prompt formats of the tiny model: special tokens, chat template, system messages, answers.

Training, evaluation and the examples that use the model all take their strings from here, so a prompt at
inference time has the same tokens as in training. Nothing but the standard library is imported.

    <|system|>Turn the utterance into JSON.<|end|><|user|>play jazz<|end|><|assistant|>{"intent":...}<|end|>

`<|end|>` is the end-of-sequence token: generation stops at it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

SYSTEM, USER, ASSISTANT, END, PAD = "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
SPECIAL_TOKENS = (PAD, END, SYSTEM, USER, ASSISTANT)  # their ids are their places here

JSON_SYSTEM = "Turn the utterance into JSON."
PUZZLE_SYSTEM = "Solve the puzzle."

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] in ['system', 'user', 'assistant'] -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- else -%}"
    "{{- raise_exception('unknown role: ' + message['role']) -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def chat_prompt(user: str, system: str | None = None) -> str:
    """Text before the answer, as the chat template renders it with `add_generation_prompt`."""
    head = f"{SYSTEM}{system}{END}" if system else ""
    return f"{head}{USER}{user}{END}{ASSISTANT}"


def json_answer(intent: str, slots: Mapping[str, str]) -> str:
    """Compact JSON of one utterance: `intent` first, then the slots in the mapping's order."""
    return json.dumps({"intent": intent, **slots}, ensure_ascii=False, separators=(",", ":"))


def _numbers(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def reach_prompt(target: int, numbers: Sequence[int]) -> str:
    """Ask for a whole solution; its first line is a step proposal (stop at a newline to get just that)."""
    return f"Reach {target} with {_numbers(numbers)}."


def can_prompt(target: int, numbers: Sequence[int]) -> str:
    """Ask for the value of a state; the answer is `yes` or `no`."""
    return f"Can {target} be reached with {_numbers(numbers)}?"


def check_prompt(target: int, numbers: Sequence[int], steps: Sequence[str]) -> str:
    """Ask whether the equations (like `3 * 5 = 15`) are a solution; the answer is `correct` or `wrong`."""
    return f"Check {target} with {_numbers(numbers)}: {'; '.join(steps)}"


def step_line(equation: str, left: Iterable[int]) -> str:
    """One line of a solution: `3 * 5 = 15 (left: 2, 15)`."""
    return f"{equation} (left: {_numbers(left)})"
