"""A model as judge of its own answers: it writes eight, and takes the one that it finds likeliest as a whole.

    python examples/judge.py [--puzzles 40]

The judge is a `select` whose choices are the answers, after the same question: its probabilities compare them as
wholes, which drawing them token by token did not. Arithmetic checks all of them at the end, to show what the judge is
worth. (To ask "correct or wrong?" instead, as larger models can be asked, is no better than chance with this one.)
"""

import argparse
from pathlib import Path

from search import SYSTEM, Puzzle

import sgl_like as sgl


@sgl.function
def judged(s: sgl.ProgramState, puzzle: Puzzle, tries: int = 8) -> None:
    s += sgl.system(SYSTEM) + sgl.user(puzzle.text) + sgl.assistant_begin()
    writing, judging = s.fork(2)
    writing += sgl.gen("answers", n=tries, temperature=0.8, max_tokens=90)
    s["answers"] = writing["answers"]
    judging += sgl.select("best", sorted(set(s["answers"])))
    s["best"], s["confidence"] = judging["best"], judging.get_meta_info("best")["choice_probs"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--puzzles", type=int, default=40)
    count = parser.parse_args().puzzles
    lines = (Path(__file__).parent / "data" / "puzzles.txt").read_text("utf-8").splitlines()[:count]
    puzzles = [Puzzle(line) for line in lines]
    samples = right = 0
    for puzzle, state in zip(
        puzzles, judged.run_batch([(puzzle,) for puzzle in puzzles], seed=1), strict=True
    ):
        samples += sum(puzzle.solved_by(answer.splitlines()) for answer in state["answers"])
        right += puzzle.solved_by(state["best"].splitlines())
    first = max(state["confidence"].items(), key=lambda pair: pair[1])
    print(f"the last puzzle's favourite ({first[1]:.0%} of the probability of all eight):\n{first[0]}")
    print(f"a sample is right in {samples / 8:.1f} of {len(puzzles)}, the judge's favourite in {right}")


if __name__ == "__main__":
    main()
