"""What smaller weights cost in accuracy: the embedded model in float32, bfloat16, int8 and int4 on SNIPS rows.

    python examples/bench/quantization_eval.py --data dev.jsonl [--limit N] [--weights float32 int8 ...]

`perplexity` is of the right answer's tokens, given the prompt and the right tokens before; `same tokens` the share of
those places where the likeliest token is that of float32, `same outputs` the share of rows whose whole greedy output
(held to the schema) is. The scores are those of `snips_eval.py`. dev.jsonl comes from examples/train_tiny/prepare.py.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from snips_eval import SCHEMA, Score, valid_output

import sgl_like as sgl

WEIGHTS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"dtype": "float32", "quantization": "int8"},
    "int4": {"dtype": "float32", "quantization": "int4"},
    "int8, bfloat16": {"dtype": "bfloat16", "quantization": "int8"},
    "int4, bfloat16": {"dtype": "bfloat16", "quantization": "int4"},
}
SYSTEM = "Turn the utterance into JSON."
Row = dict[str, Any]


class Results(NamedTuple):
    """Of one kind of weights: log-probabilities of the right tokens, the likeliest ones, outputs, megabytes."""

    logprobs: list[float]
    likeliest: list[int]
    outputs: list[str]
    megabytes: float


def prompt_and_answer(tokenizer: Any, row: Row) -> tuple[list[int], list[int]]:
    """Token ids of a row as the model was trained on it, the end of the answer included."""
    text = ""
    messages: list[dict[str, str]] = []
    for role, content in (("system", SYSTEM), ("user", row["text"])):
        before, after = tokenizer.role_affixes(messages, role)
        text += before + content + after
        messages.append({"role": role, "content": content})
    before, after = tokenizer.role_affixes(messages, "assistant")
    prompt = tokenizer.encode(text + before)
    answer = {"intent": row["intent"], **row["slots"]}
    return prompt, tokenizer.encode(json.dumps(answer, ensure_ascii=False, separators=(",", ":")) + after)


def measure(rows: list[Row], options: dict[str, Any]) -> Results:
    """Score the right answers, then generate."""
    with sgl.Engine(**options) as engine:
        pairs = [prompt_and_answer(engine.tokenizer, row) for row in rows]
        scored = engine.generate(
            input_ids=[prompt + answer for prompt, answer in pairs],
            sampling_params={"max_new_tokens": 0},
            return_logprob=True,
            logprob_start_len=[len(prompt) - 1 for prompt, _ in pairs],
            top_logprobs_num=1,
        )
        logprobs, likeliest = [], []
        for result, (_, answer) in zip(scored, pairs, strict=True):
            places = result["meta_info"]["input_token_logprobs"][1:]  # the first has no value
            assert [token for _, token, _ in places] == answer
            logprobs += [logprob for logprob, _, _ in places]
            likeliest += [top[0][1] for top in result["meta_info"]["input_top_logprobs"][1:]]
        params = {"max_new_tokens": 256, "temperature": 0, "json_schema": SCHEMA, "property_order": "any"}
        made = engine.generate(input_ids=[prompt for prompt, _ in pairs], sampling_params=params)
        weights = engine.get_server_info()["memory_bytes"]["weights"]
    return Results(logprobs, likeliest, [result["text"] for result in made], weights / 1e6)


def share(found: list[Any], reference: list[Any]) -> float:
    """How many are equal."""
    return sum(a == b for a, b in zip(found, reference, strict=True)) / max(len(reference), 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="JSONL rows with text, intent and slots")
    parser.add_argument("--limit", type=int, default=None, help="only the first rows")
    parser.add_argument("--weights", nargs="*", default=list(WEIGHTS), choices=list(WEIGHTS))
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.data.read_text("utf-8").split("\n") if line.strip()][
        : args.limit
    ]
    exact = measure(rows, WEIGHTS["float32"])
    print(f"{len(rows)} rows, {len(exact.logprobs)} tokens of answers\n")
    print("| weights | MB | perplexity | same tokens | same outputs | intent | slot F1 | exact | valid |")
    print("|---|" + "---:|" * 8)
    for name in args.weights:
        found = exact if name == "float32" else measure(rows, WEIGHTS[name])
        score = Score()
        for row, output in zip(rows, found.outputs, strict=True):
            score.add(row, valid_output(output))
        scores = score.summary(1.0)
        cells = [
            f"{found.megabytes:.1f}",
            f"{math.exp(-math.fsum(found.logprobs) / len(found.logprobs)):.5f}",
        ]
        cells += [
            f"{share(found.likeliest, exact.likeliest):.4f}",
            f"{share(found.outputs, exact.outputs):.4f}",
        ]
        cells += [f"{scores[key]:.4f}" for key in ("intent", "slot_f1", "exact", "valid")]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
