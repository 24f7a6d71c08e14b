"""Programs (`programs.py`) on our engine, also with one feature off at a time, and the same calls on other engines.

    python examples/bench/programs_bench.py MODEL --peers-python VENV/bin/python [--weights int8] [--repeats 3]
    python examples/bench/programs_bench.py --small            # embedded model, small sizes: does it run?

MODEL is what ../shared/bench/engine/make_model.py wrote. Weights are random, so outputs have fixed lengths, and JSON
is what the schema lets through; without jump-forward such a model writes forced text in other, shorter tokens than a
trained one would, so see how many there are. The tokenizer is BPE, trained here on the source text of this
repository. Our first run records the calls (prompt ids, output ids, schema or choices, and which had to wait for
which); `programs_peers.py` repeats them with the same ids. JSON lines, then a table of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from programs import FULL, PROGRAMS, SMALL, run

import sgl_like as sgl

FEATURES: dict[str, dict[str, Any]] = {
    "all on": {},
    "no radix cache": {"enable_radix_cache": False},
    "fcfs": {"schedule_policy": "fcfs"},
    "no jump-forward": {"jump_forward": False},
}
ROWS = 16
COUNTS = ("prompt_tokens", "cached_tokens", "computed_tokens", "completion_tokens", "forced_tokens")
TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"


class Recorder(sgl.Runtime):
    """A backend that keeps the calls of programs and what they used.

    Args:
        jump_forward: for all calls.
    """

    def __init__(self, model: str | None, jump_forward: bool = True, **options: Any) -> None:
        super().__init__(model, **options)
        self._jump_forward = jump_forward
        self.calls: list[dict[str, Any]] = []
        self.usage = dict.fromkeys(COUNTS, 0)

    def submit(self, prompt_ids: Sequence[int], params: Mapping[str, Any], sink: Any, stream: bool) -> Any:
        """As `Runtime.submit`."""
        call = {"prompt": list(prompt_ids), "output": [], "schema": params.get("json_schema")}
        self.calls.append(call)
        params = {**params, "jump_forward": self._jump_forward}
        return super().submit(prompt_ids, params, partial(self._keep, call, sink), stream)

    def score(self, prompt_ids: Sequence[int], choices: Sequence[Sequence[int]], sink: Any) -> Any:
        """As `Runtime.score`."""
        call = {"prompt": list(prompt_ids), "output": [], "choices": [list(choice) for choice in choices]}
        self.calls.append(call)
        return super().score(prompt_ids, choices, partial(self._keep, call, sink))

    def _keep(self, call: dict[str, Any], sink: Any, output: Any) -> None:
        call["output"] += output.token_ids
        if output.is_terminal:
            for name in COUNTS:
                self.usage[name] += getattr(output.usage, name)
        sink(output)


def with_waves(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add ``"wave"``: a call whose prompt goes on from another's output comes in a later wave than that."""
    ended: dict[tuple[int, ...], int] = {}
    for call in calls:
        prompt = tuple(call["prompt"])
        before = [
            ended[prompt[:n]] for n in {len(key) for key in ended} if n <= len(prompt) and prompt[:n] in ended
        ]
        call["wave"] = 1 + max(before, default=-1)
        if call["output"]:
            ended[(*prompt, *call["output"])] = call["wave"]
    return calls


def with_words(folder: Path, out: Path) -> Path:
    """The same weights with a tokenizer of common words; the ids that it leaves over are pieces like ``t9000``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    config = json.loads((folder / "config.json").read_text())
    root = Path(__file__).parents[2]
    texts = (path.read_text("utf-8") for path in sorted([*root.glob("*.md"), *root.glob("sgl_like/**/*.py")]))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=8000, initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    made = json.loads(tokenizer.to_str())
    vocab = made["model"]["vocab"]
    vocab.update((f"t{i}", i) for i in range(len(vocab), config["vocab_size"]))
    (out / "tokenizer.json").write_text(json.dumps(made))
    (out / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": TEMPLATE, "eos_token": "</s>", "unk_token": "<unk>"})
    )
    shutil.copy(folder / "config.json", out)
    (out / "model.safetensors").symlink_to((folder / "model.safetensors").resolve())
    return out


def run_ours(
    model: str | None, name: str, feature: str, options: argparse.Namespace
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Time one program on one engine; its line, and the calls that it made."""
    size = SMALL if options.small else FULL
    # random weights repeat themselves, so drafts would be right too often
    settings: dict[str, Any] = {"max_running_requests": ROWS, "speculation": "off", **FEATURES[feature]}
    if model is not None:
        settings |= {"dtype": "bfloat16", "threads": 2}
        settings["quantization"] = None if options.weights == "bf16" else options.weights
        settings["kv_cache_memory"] = PROGRAMS[name].slots * options.slot_bytes
    times = []
    with Recorder(model, **settings) as runtime:
        run(name, runtime, SMALL)  # compiles kernels and grammars
        for _ in range(options.repeats):
            runtime.flush_cache()
            runtime.calls, runtime.usage = [], dict.fromkeys(COUNTS, 0)
            steps = runtime.engine.stats()["steps"]
            started = time.perf_counter()
            run(name, runtime, size)
            times.append(time.perf_counter() - started)
            if times[-1] > 60:
                break  # as for the peers
        steps = runtime.engine.stats()["steps"] - steps
        line = {"engine": f"sgl_like-{options.weights}, {feature}", "program": name}
        line |= {"s": round(statistics.median(times), 3), "calls": len(runtime.calls), "steps": steps}
        return line | runtime.usage, with_waves(runtime.calls)


def run_peers(calls: dict[str, Any], folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The same calls on the peers, in their environment; prints and returns their lines."""
    (folder / "calls.json").write_text(json.dumps(calls))
    command = [options.peers_python, str(Path(__file__).with_name("programs_peers.py"))]
    command += [str(options.model), str(folder), "--repeats", str(options.repeats), *options.engines]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    return [show(json.loads(line)) for line in found.stdout.splitlines() if line.startswith("{")]


def show(line: dict[str, Any]) -> dict[str, Any]:
    """Print a line and give it back."""
    print(json.dumps(line), flush=True)
    return line


def table(lines: list[dict[str, Any]]) -> None:
    """Seconds of each engine, and how many times those of ours with all on they are; then our counts."""
    found = {(line["engine"], line["program"]): line for line in lines if "s" in line}
    programs = list(dict.fromkeys(line["program"] for line in lines))
    engines = list(dict.fromkeys(line["engine"] for line in lines))
    print("\n| seconds | " + " | ".join(programs) + " |\n|---|" + "---:|" * len(programs))
    for engine in engines:
        cells = []
        for program in programs:
            line, ours = found.get((engine, program)), found.get((engines[0], program))
            cells.append(f"{line['s']:.2f} ({line['s'] / ours['s']:.2f}x)" if line and ours else "failed")
        print(f"| {engine} | " + " | ".join(cells) + " |")
    print("\nCounts of ours, where they are not those with all on:\n")
    print("| | program | calls | cached / prompt tokens | forced / new tokens | computed | steps |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for (engine, program), line in found.items():
        counts, all_on = ([x.get(name) for name in COUNTS] for x in (line, found[engines[0], program]))
        if "prompt_tokens" in line and (engine == engines[0] or counts != all_on):
            prompt, cached, computed, new, forced = counts
            row = (engine, program, line["calls"], f"{cached} / {prompt} ({cached / prompt:.1%})")
            print("|", " | ".join(map(str, (*row, f"{forced} / {new}", computed, line["steps"]))), "|")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, nargs="?", help="folder with hf/ and the gguf files")
    parser.add_argument("--weights", choices=("bf16", "int8", "int4"), default="int8")
    parser.add_argument("--programs", nargs="*", default=list(PROGRAMS), choices=list(PROGRAMS))
    parser.add_argument("--features", nargs="*", default=list(FEATURES), choices=list(FEATURES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="small sizes, for a trial")
    parser.add_argument("--peers-python", help="without it only ours run")
    parser.add_argument("--engines", nargs="*", default=["hf-bf16", "llama-q8_0", "llama-bf16"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, model = Path(scratch), None
        if options.model is not None:
            model = str(with_words(options.model / "hf", folder))
            shape = json.loads((folder / "config.json").read_text())
            wide = shape["num_key_value_heads"] * shape["head_dim"]
            options.slot_bytes = 2 * 2 * wide * shape["num_hidden_layers"]  # keys and values in bfloat16
        lines, calls = [], {}
        for name in options.programs:
            for feature in options.features:
                line, made = run_ours(model, name, feature, options)
                lines.append(show(line))
                calls.setdefault(name, {"slots": PROGRAMS[name].slots, "calls": made})
        if options.peers_python:
            lines += run_peers(calls, folder, options)
    table(lines)


if __name__ == "__main__":
    main()
