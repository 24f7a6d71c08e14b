"""Arithmetic puzzles: reach a target with all of 2 to 4 given numbers, using + - * / in any order.

A state is a tuple of numbers. A step takes two of them and appends the result; a solution is the steps to the
single number `target`. All values are whole, 0 to 100. `solve` and `reachable` are brute force and
the truth for every label; everything drawn at random comes from the `random.Random` passed in.
"""

from __future__ import annotations

import hashlib
import random
import re
from functools import lru_cache
from typing import NamedTuple

from formats import can_prompt, check_prompt, reach_prompt, step_line

MAX_VALUE = 100
_EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
_LINE = re.compile(rf"({_EQUATION.pattern}) \(left: (\d+(?:, \d+)*)\)")


class Step(NamedTuple):
    """One move: the equation, and the numbers left after it (the result last)."""

    equation: str
    left: tuple[int, ...]


class Example(NamedTuple):
    """One training example: user message and answer."""

    user: str
    answer: str


@lru_cache(maxsize=200_000)
def steps(numbers: tuple[int, ...]) -> tuple[Step, ...]:
    """Every legal step from a state, larger operand first, without duplicates."""
    found: dict[str, Step] = {}
    for i in range(len(numbers)):
        for j in range(i + 1, len(numbers)):
            a, b = max(numbers[i], numbers[j]), min(numbers[i], numbers[j])
            rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
            results = [("+", a + b), ("-", a - b), ("*", a * b)] + (
                [("/", a // b)] if b and a % b == 0 else []
            )
            for sign, value in results:
                if value <= MAX_VALUE:
                    equation = f"{a} {sign} {b} = {value}"
                    found.setdefault(equation, Step(equation, (*rest, value)))
    return tuple(found.values())


@lru_cache(maxsize=400_000)
def reachable(numbers: tuple[int, ...]) -> frozenset[int]:
    """Every target that can be made with all of the (sorted) numbers."""
    if len(numbers) == 1:
        return frozenset(numbers)
    return frozenset().union(*(reachable(tuple(sorted(step.left))) for step in steps(numbers)))


def can_reach(target: int, numbers: tuple[int, ...]) -> bool:
    """Brute-force truth of the value question."""
    return target in reachable(tuple(sorted(numbers)))


def solve(target: int, numbers: tuple[int, ...], rng: random.Random) -> list[Step]:
    """A random solution: random steps that keep the target reachable; [] when there is none."""
    path: list[Step] = []
    while len(numbers) > 1:
        good = [step for step in steps(numbers) if can_reach(target, step.left)]
        if not good:
            return []
        path.append(rng.choice(good))
        numbers = path[-1].left
    return path if numbers == (target,) else []


def is_solution(target: int, numbers: tuple[int, ...], equations: list[str]) -> bool:
    """Whether the equations use up the numbers, one legal step each, and end in the target."""
    left = list(numbers)
    for equation in equations:
        match = _EQUATION.fullmatch(equation)
        if match is None:
            return False
        a, sign, b, value = int(match[1]), match[2], int(match[3]), int(match[4])
        for operand in (a, b):
            if operand not in left:
                return False
            left.remove(operand)
        truth = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[sign]
        if truth != value:
            return False
        left.append(value)
    return left == [target]


def parse_answer(answer: str) -> list[str] | None:
    """The equations of a solution as the model writes it, or None when a line is malformed."""
    matches = [_LINE.fullmatch(line) for line in answer.strip().split("\n")]
    return None if any(match is None for match in matches) else [match[1] for match in matches if match]


def passes(target: int, numbers: tuple[int, ...], answer: str) -> bool:
    """Whether an answer to `reach_prompt` is right (its `left:` remarks are not judged)."""
    equations = parse_answer(answer)
    return equations is not None and is_solution(target, numbers, equations)


def held_out(target: int, numbers: tuple[int, ...]) -> bool:
    """About one puzzle of 3 or 4 numbers in 50 is for evaluation only, in any order of its numbers."""
    digest = hashlib.sha256(f"{target}:{sorted(numbers)}".encode()).digest()
    return len(numbers) > 2 and digest[0] < 5


def draw_puzzle(rng: random.Random, count: int, held: bool = False) -> tuple[int, tuple[int, ...]]:
    """A solvable puzzle of `count` numbers (1..9) with a target in 1..50, from one side of the split."""
    if held and count < 3:
        raise ValueError("puzzles of two numbers are never held out: draw 3 or 4")
    while True:
        numbers = tuple(rng.randint(1, 9) for _ in range(count))
        if not held and rng.random() < (0.6 if count == 2 else 0.15 if count == 3 else 0):
            numbers = (
                *numbers[:-1],
                rng.randint(1, 60),
            )  # a state met in a search: its last number is a result
        targets = [t for t in sorted(reachable(tuple(sorted(numbers)))) if 1 <= t <= 50]
        if targets:
            target = rng.choice(targets)
            if held_out(target, numbers) == held:
                return target, numbers


def solution(rng: random.Random) -> Example:
    """A puzzle and one of its solutions, drawn at random."""
    target, numbers = draw_puzzle(rng, rng.choices((2, 3, 4), (15, 75, 10))[0])
    path = solve(target, numbers, rng)
    return Example(reach_prompt(target, numbers), "\n".join(step_line(s.equation, s.left) for s in path))


def labelled_can(rng: random.Random) -> Example:
    """A value question about 2 or 3 numbers, balanced."""
    target, numbers = draw_puzzle(rng, rng.choices((2, 3), (85, 15))[0])
    if rng.random() < 0.5:
        near = [t for t in range(max(1, target - 12), target + 13) if not can_reach(t, numbers)]
        target = rng.choice(near) if near else target
    return Example(can_prompt(target, numbers), "yes" if can_reach(target, numbers) else "no")


def _shift(number: int, rng: random.Random) -> int:
    return max(0, number + rng.choice((-10, -3, -2, -1, 1, 2, 3, 10)))


def _corrupt(target: int, numbers: tuple[int, ...], path: list[Step], rng: random.Random) -> list[str]:
    """A realistic wrong solution: a bad sum, an invented operand, or legal steps to another number."""
    equations = [step.equation for step in path]
    kind = rng.random()
    if kind < 0.4:  # a result that is off
        k = rng.randrange(len(equations))
        head, value = equations[k].rsplit(" ", 1)
        equations[k] = f"{head} {target if rng.random() < 0.3 else _shift(int(value), rng)}"
    elif kind < 0.65:  # a true equation with a number that is not there
        a, sign, b, _, _ = equations[0].split()
        other = _shift(int(b), rng)
        result = {"+": int(a) + other, "-": int(a) - other, "*": int(a) * other}.get(sign, other)
        equations[0] = f"{a} {sign} {other} = {result}"
    else:  # legal steps that end elsewhere
        equations, state = [], numbers
        while len(state) > 1:
            step = rng.choice(steps(state))
            equations.append(step.equation)
            state = step.left
    return equations


def labelled_check(rng: random.Random) -> Example:
    """A self-check of a right or a corrupted solution, balanced."""
    target, numbers = draw_puzzle(rng, rng.choices((2, 3, 4), (30, 60, 10))[0])
    path = solve(target, numbers, rng)
    equations = [step.equation for step in path]
    if rng.random() < 0.5:
        equations = _corrupt(target, numbers, path, rng)
    label = "correct" if is_solution(target, numbers, equations) else "wrong"
    return Example(check_prompt(target, numbers, equations), label)


def draw_example(rng: random.Random) -> Example:
    """One training example of a random kind: solution (55 %), value question (20 %) or self-check (25 %)."""
    return rng.choices((solution, labelled_can, labelled_check), (55, 20, 25))[0](rng)
