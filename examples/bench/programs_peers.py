"""The calls that `programs_bench.py` recorded, on transformers or llama.cpp, with their Python, without sgl_like.

    python programs_peers.py MODEL FOLDER [--repeats 3] hf-bf16 llama-q8_0 ...

FOLDER has ``calls.json`` and our ``tokenizer.json``. Calls of one wave run side by side, up to 16 at a time. Outputs
are given: every engine computes what it needs to choose the next token, then goes on with the recorded one (only
`generate` with its own), so that all do the same calls, and llama.cpp's grammar never meets the choices of random
weights. One JSON line per program; what takes over a minute is run once.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from itertools import groupby
from pathlib import Path
from typing import Any

from programs_llama import LlamaCpp

ROWS, SCORED = 16, 8  # calls at a time: of those that generate, and that score choices
Call = dict[str, Any]


def groups(calls: list[Call]) -> list[list[Call]]:
    """Calls that run side by side, wave after wave."""
    found = []
    for _, wave in groupby(sorted(calls, key=lambda call: call["wave"]), key=lambda call: call["wave"]):
        many = list(wave)
        size = SCORED if many[0].get("choices") else ROWS
        found += [many[i : i + size] for i in range(0, len(many), size)]
    return found


class Transformers:
    """`generate` on a batch, the prompts padded on the left; no constraint. Of choices the prompt's cache is shared."""

    def __init__(self, model: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(2)
        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()

    def run(self, calls: list[Call]) -> None:
        """Generate, or score the choices of, calls that run side by side."""
        with self.torch.inference_mode():
            if calls[0].get("choices"):
                for call in calls:
                    self.score(call["prompt"], call["choices"])
                return
            new = max(len(call["output"]) for call in calls)
            longest = max(len(call["prompt"]) for call in calls)
            ids = self.torch.zeros(len(calls), longest, dtype=self.torch.long)
            mask = self.torch.zeros_like(ids)
            for i, call in enumerate(calls):
                ids[i, longest - len(call["prompt"]) :] = self.torch.tensor(call["prompt"])
                mask[i, longest - len(call["prompt"]) :] = 1
            self.model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                pad_token_id=0,
            )

    def score(self, prompt: list[int], choices: list[list[int]]) -> None:
        """The prompt once, then the choices as a batch after its cache."""
        longest = max(map(len, choices))
        rows = self.torch.tensor([choice + [0] * (longest - len(choice)) for choice in choices])
        first = self.model(self.torch.tensor([prompt]), logits_to_keep=1, use_cache=True)
        cache = first.past_key_values
        cache.batch_repeat_interleave(len(choices))
        mask = self.torch.ones(len(choices), len(prompt) + longest, dtype=self.torch.long)
        self.model(rows, past_key_values=cache, attention_mask=mask).logits.float().log_softmax(-1)

    def forget(self) -> None:
        """Nothing is kept between calls."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("engines", nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    programs = json.loads((options.folder / "calls.json").read_text())
    slots = max(program["slots"] for program in programs.values())
    for engine in options.engines:
        kind, _, weights = engine.partition("-")
        made: Any = (
            Transformers(options.model / "hf")
            if kind == "hf"
            else LlamaCpp(options.model / f"{weights}.gguf", options.folder, slots)
        )
        for name, program in programs.items():
            line = {"engine": engine, "program": name}
            try:
                times = []
                for _ in range(options.repeats):
                    made.forget()
                    started = time.perf_counter()
                    for group in groups(program["calls"]):
                        made.run(group)
                    times.append(time.perf_counter() - started)
                    if times[-1] > 60:
                        break
                print(json.dumps({**line, "s": round(statistics.median(times), 3)}), flush=True)
            except Exception as error:
                print(json.dumps({**line, "error": repr(error)[:300]}), flush=True)
        del made
        gc.collect()


if __name__ == "__main__":
    main()
