"""Average the weights of several checkpoints of one training run, export the result, and score it.

    python examples/train_tiny/average.py A.pt B.pt --data /work/shared/data/snips/train.jsonl

Checkpoints on both sides of a learning-rate cycle disagree about different rows; their average is better than either
(Wortsman et al., Model soups, 2022).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from evaluate import score_judgements, score_puzzles, score_rows
from export import export
from model import Llama, Shape
from prepare import read_rows, split_rows
from tokenizers import Tokenizer


def main() -> None:
    """Read the checkpoints, write the model folder, print the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parents[2] / "sgl_like" / "assets" / "tiny"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    averages = [torch.load(path, map_location="cpu")["average"] for path in args.checkpoints]
    weights = {name: sum(each[name].float() for each in averages) / len(averages) for name in averages[0]}
    tokenizer = Tokenizer.from_file(str(args.out / "tokenizer.json"))
    shape = Shape(vocab=tokenizer.get_vocab_size())
    export(weights, shape, args.out)
    model = Llama(shape)
    model.load_state_dict(weights)
    model.eval()
    print(score_rows(model, tokenizer, split_rows(read_rows(args.data)).dev)[0], flush=True)
    for size in (2, 3, 4):
        print(size, "numbers", score_puzzles(model, tokenizer, size), flush=True)
    print(score_judgements(model, tokenizer))


if __name__ == "__main__":
    main()
