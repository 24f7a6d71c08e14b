"""ReAct: the model acts, the world answers, and the model goes on from what it sees; here with a calculator.

    python examples/react.py [--puzzles 60]

In a puzzle ("Reach 17 with 3, 5, 2.") an action is ``5 * 3``, held to the numbers that are there; the observation,
`` = 15 (left: 2, 15)``, is computed and not guessed. Left alone, the model has to do its sums itself.
"""

import argparse
from collections import Counter
from pathlib import Path

from search import SYSTEM, Puzzle, answer

import sgl_like as sgl

OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}


def calculate(action: str, left: list[int]) -> str | None:
    """Do an action on the numbers that are left; the observation, or ``None`` if it cannot be done."""
    first, sign, second = action.split(" ")
    rest = list(left)
    for number in (int(first), int(second)):
        if number not in rest:
            return None
        rest.remove(number)
    if sign == "/" and (int(second) == 0 or int(first) % int(second)):
        return None
    rest.append(int(OPERATIONS[sign](int(first), int(second))))
    left[:] = rest
    return f" = {rest[-1]} (left: {', '.join(map(str, rest))})\n"


@sgl.function
def react(s: sgl.ProgramState, puzzle: Puzzle) -> str:
    """Lines of actions and observations, until one number is left or an action cannot be done."""
    s += sgl.system(SYSTEM) + sgl.user(puzzle.text)
    left, lines = list(puzzle.numbers), ""
    with s.assistant():
        while len(left) > 1:
            number = "|".join(map(str, left))
            s += sgl.gen("action", regex=rf"({number}) [-+*/] ({number})", max_tokens=12, temperature=0)
            observation = calculate(s["action"], left)
            if observation is None:
                break
            s += observation
            lines += s["action"] + observation
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--puzzles", type=int, default=60)
    count = parser.parse_args().puzzles
    text = (Path(__file__).parent / "data" / "puzzles.txt").read_text("utf-8")
    puzzles = [Puzzle(line) for line in text.splitlines()[:count]]
    solved: Counter[str] = Counter()
    for puzzle, state in zip(puzzles, answer.run_batch([(p, 1, 0.0) for p in puzzles]), strict=True):
        solved["alone"] += puzzle.solved_by(state["answer"].splitlines())
    for puzzle, state in zip(puzzles, react.run_batch([(p,) for p in puzzles]), strict=True):
        solved["with a calculator"] += puzzle.solved_by(state.ret_value.splitlines())
    print(state.text())
    for name, right in solved.items():
        print(f"{name:18} {right:3} of {len(puzzles)}")


if __name__ == "__main__":
    main()
