"""Train the tiny model from scratch within a budget of wall-clock minutes, and export it.

    python examples/train_tiny/train.py --data /work/shared/data/snips/train.jsonl --minutes 65

The learning rate follows the share of the budget that is used up, so a slower machine gets fewer epochs,
not a cut-off schedule. What is exported and scored is the average of the weights.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path

import torch
from augment import Augmenter
from batches import Mix, batches, epoch
from evaluate import score_judgements, score_puzzles, score_rows
from export import export
from model import Llama, Shape
from optim import Average, make_optimizers
from prepare import Row, ordered, read_rows, split_rows
from tokenizers import Tokenizer
from torch import Tensor
from vocabulary import save_tokenizer, train_tokenizer


class Master:
    """Float32 weights that the optimizers step; the bfloat16 model computes with copies of them."""

    def __init__(self, model: Llama, lr: float, weight_decay: float, decay: float) -> None:
        self.fast = model
        self.full = Llama(model.shape).to(next(model.parameters()).device)
        self.full.load_state_dict(model.state_dict())
        self.fast.bfloat16()
        self.optimizers = make_optimizers(self.full, lr, weight_decay)
        self.average = Average(self.full, decay)

    def step(self, lr: float) -> None:
        """Move by the gradients of the fast copy, then copy back."""
        pairs = list(zip(self.full.parameters(), self.fast.parameters(), strict=True))
        for full, fast in pairs:
            full.grad = None if fast.grad is None else fast.grad.float()
        torch.nn.utils.clip_grad_norm_(self.full.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
        with torch.no_grad():
            for full, fast in pairs:
                fast.copy_(full)
        self.fast.zero_grad()
        self.average.update(self.full)

    def averaged(self) -> Llama:
        """A model with the averaged weights, as they will be exported (rounded to bfloat16)."""
        model = Llama(self.full.shape).to(next(self.full.parameters()).device).eval()
        model.load_state_dict({name: p.bfloat16().float() for name, p in self.average.weights.items()})
        return model

    def state(self) -> dict[str, object]:
        """All that a later run needs to go on."""
        return {
            "full": self.full.state_dict(),
            "average": self.average.weights,
            "averaged_steps": self.average.steps,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load(self, path: Path) -> None:
        """Take up a checkpoint written by `state`."""
        state = torch.load(path, weights_only=True)
        self.full.load_state_dict(state["full"])
        self.fast.load_state_dict(state["full"])
        self.average.weights, self.average.steps = state["average"], state["averaged_steps"]
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)


class Run:
    """One training run: clock, schedule, and the reports along the way."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.began = time.monotonic()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        split = split_rows([ordered(row) for row in read_rows(args.data)])
        self.dev: list[Row] = split.dev
        self.data = Augmenter(split.train)
        args.work.mkdir(parents=True, exist_ok=True)
        if args.resume:  # the weights know this tokenizer only
            self.tokenizer: Tokenizer = Tokenizer.from_file(str(args.out / "tokenizer.json"))
        else:
            self.tokenizer = train_tokenizer(split.train)
            save_tokenizer(self.tokenizer, args.out)
        torch.manual_seed(args.seed)
        model = Llama(Shape(), args.dropout).to(self.device)
        self.master = Master(model, args.lr, args.weight_decay, args.average)
        if args.resume:
            self.master.load(args.resume)
        self.steps = 0

    @property
    def progress(self) -> float:
        """Share of the budget used, 0..1."""
        budget: float = self.args.minutes
        return (time.monotonic() - self.began) / (60 * budget)

    def rate(self) -> float:
        """Warm-up over 100 steps, then a cosine over the budget down to 1 % of the peak."""
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress)))
        peak: float = self.args.lr
        return peak * cosine * min(1.0, (self.steps + 1) / 100)

    def learn(self, ids: Tensor, where: Tensor) -> Tensor:
        """One optimizer step; the loss."""
        loss = self.master.fast.loss(ids.to(self.device), where.to(self.device))
        loss.backward()  # type: ignore[no-untyped-call]
        self.master.step(self.rate())
        self.steps += 1
        return loss.detach()

    def report(self, epochs: int, loss: float) -> None:
        """Score, export and save."""
        model = self.master.averaged()
        torch.set_num_threads(1)  # small steps: a second thread only waits
        scores, _ = score_rows(model, self.tokenizer, self.dev)
        torch.set_num_threads(self.args.threads)
        self.say(f"epoch {epochs} step {self.steps} loss {loss:.4f} {scores}")
        export(self.master.average.weights, self.master.full.shape, self.args.out)
        torch.save(self.master.state(), self.args.work / "last.pt")

    def say(self, text: str) -> None:
        """A line of the log with the minutes so far."""
        print(f"[{(time.monotonic() - self.began) / 60:5.1f} min] {text}", flush=True)

    def train(self) -> None:
        """Epochs until the budget is used up, a report every `--report` minutes, all scores at the end."""
        rng = random.Random(self.args.seed)
        mix = Mix(puzzles=self.args.puzzles)
        due, epochs, mean = self.args.first_report / self.args.minutes, 0, 0.0
        while self.progress < 1:
            losses: list[Tensor] = []
            for batch in batches(epoch(self.data, self.tokenizer, mix, rng), mix, rng):
                losses.append(self.learn(batch.ids, batch.where))
                if self.progress >= due:
                    self.report(epochs, float(torch.stack(losses).mean()))
                    due = self.progress + self.args.report / self.args.minutes
                if self.progress >= 1:
                    break
            epochs += 1
            mean = float(torch.stack(losses).mean())
            self.say(f"epoch {epochs} done, step {self.steps}, loss {mean:.4f}")
        self.report(epochs, mean)
        model = self.master.averaged()
        for size in (2, 3, 4):
            self.say(f"{size} numbers {score_puzzles(model, self.tokenizer, size)}")
        self.say(str(score_judgements(model, self.tokenizer)))


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parents[2] / "sgl_like" / "assets" / "tiny"
    )
    parser.add_argument("--work", type=Path, default=Path("/tmp/train_tiny"), help="checkpoints")
    parser.add_argument(
        "--resume", type=Path, default=None, help="go on from here, with the tokenizer in --out"
    )
    parser.add_argument("--minutes", type=float, default=65.0)
    parser.add_argument("--report", type=float, default=7.0, help="minutes between reports")
    parser.add_argument("--first-report", type=float, default=4.0)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--average", type=float, default=0.997)
    parser.add_argument("--puzzles", type=int, default=9000, help="per epoch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    Run(args).train()


if __name__ == "__main__":
    main()
