"""Greedy decoding, self-consistency and tree of thought on arithmetic puzzles, and how many each solves.

    python examples/search.py [--puzzles 60]

A puzzle is "Reach 17 with 3, 5, 2."; the embedded model answers a step a line: ``5 * 3 = 15 (left: 2, 15)``.
Tree of thought forks the open answer after every line: the forks share what was computed before them, steps that
break the rules are dropped, and of the others it goes on with those that the model found likeliest.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path

import sgl_like as sgl

SYSTEM = "Solve the puzzle."
NUMBERS = r"[0-9]{1,2}(, [0-9]{1,2})*"
STEP = rf"[0-9]{{1,3}} [-+*/] [0-9]{{1,3}} = [0-9]{{1,3}} \(left: {NUMBERS}\)"
_EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
Numbers = tuple[int, ...]
Thought = tuple[sgl.ProgramState, Numbers, list[str]]  # with the numbers left, and the lines so far


class Puzzle:
    """``text``, its numbers, and its target."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.target, *numbers = (int(number) for number in re.findall(r"\d+", text))
        self.numbers = tuple(numbers)

    def solved_by(self, lines: list[str]) -> bool:
        """Whether the lines are legal steps that use up the numbers and end in the target."""
        left: Numbers | None = self.numbers
        for line in lines:
            left = None if left is None else after(left, line)
        return left == (self.target,)


def after(numbers: Numbers, line: str) -> Numbers | None:
    """What is left of `numbers` after a step, or ``None`` if it breaks the rules."""
    equation = _EQUATION.match(line)
    if equation is None:
        return None
    a, sign, b, result = int(equation[1]), equation[2], int(equation[3]), int(equation[4])
    left = list(numbers)
    for number in (a, b):
        if number not in left:
            return None
        left.remove(number)
    right = {"+": a + b == result, "-": a - b == result, "*": a * b == result, "/": b * result == a}
    return (*left, result) if right[sign] else None


@sgl.function
def answer(s: sgl.ProgramState, puzzle: Puzzle, n: int, temperature: float) -> None:
    """The whole answer, `n` times."""
    s += sgl.system(SYSTEM) + sgl.user(puzzle.text)
    s += sgl.assistant(sgl.gen("answer", n=n, temperature=temperature, max_tokens=90))


def likelihood(thought: Thought) -> float:
    """Log-probability of its last line."""
    tokens = thought[0].get_meta_info("step")["output_token_logprobs"]
    return float(sum(logprob for logprob, _, _ in tokens))


@sgl.function
def tree_of_thought(s: sgl.ProgramState, puzzle: Puzzle, width: int = 4, branching: int = 6) -> list[str]:
    """The lines of a solution, if the search finds one."""
    s += sgl.system(SYSTEM) + sgl.user(puzzle.text) + sgl.assistant_begin()
    frontier: list[Thought] = [(s, puzzle.numbers, [])]
    for _ in puzzle.numbers[1:]:
        thoughts = [(fork, left, lines) for state, left, lines in frontier for fork in state.fork(branching)]
        for fork, _, _ in thoughts:
            step = sgl.gen("step", regex=STEP, max_tokens=48, temperature=1.0, return_logprob=True)
            fork += step + "\n"
        legal: dict[Numbers, Thought] = {}  # one way to each set of numbers
        for fork, left, lines in thoughts:
            rest, line = after(left, fork["step"]), str(fork["step"])
            if rest == (puzzle.target,):
                return [*lines, line]
            if rest is not None and len(rest) > 1:
                legal.setdefault(tuple(sorted(rest)), (fork, rest, [*lines, line]))
        frontier = sorted(legal.values(), key=likelihood, reverse=True)[:width]
    return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--puzzles", type=int, default=60)
    count = parser.parse_args().puzzles
    lines = (Path(__file__).parent / "data" / "puzzles.txt").read_text("utf-8").splitlines()[:count]
    puzzles = [Puzzle(line) for line in lines]
    solved: Counter[str] = Counter()

    for puzzle, state in zip(puzzles, answer.run_batch([(p, 1, 0.0) for p in puzzles]), strict=True):
        solved["greedy"] += puzzle.solved_by(state["answer"].splitlines())
    for puzzle, state in zip(puzzles, answer.run_batch([(p, 8, 0.8) for p in puzzles], seed=1), strict=True):
        votes = Counter(state["answer"])
        solved["self-consistency, 8 samples"] += puzzle.solved_by(votes.most_common(1)[0][0].splitlines())
    for puzzle, state in zip(
        puzzles, tree_of_thought.run_batch([(p,) for p in puzzles], seed=1), strict=True
    ):
        solved["tree of thought"] += puzzle.solved_by(state.ret_value)

    for name, right in solved.items():
        print(f"{name:28} {right:3} of {len(puzzles)} ({right / len(puzzles):.0%})")


if __name__ == "__main__":
    main()
