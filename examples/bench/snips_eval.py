"""Score extraction on SNIPS rows: `{"text": ..., "intent": ..., "slots": {name: value}}`, one JSON object a line.

    python examples/bench/snips_eval.py --data FILE.jsonl [--limit N] [--concurrency N] [--model PATH_OR_ID]

Scores are over all rows; an output that is cut, not JSON or not valid counts as wrong everywhere. `rows_per_s`
leaves out loading the model and nothing else: schema compilation, tokenisation and Numba's first compilation (if
its cache is cold) are in. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import jsonschema

import sgl_like as sgl

SCHEMA_FILE = Path(sgl.__file__).parent / "assets" / "demo" / "snips.schema.json"
SCHEMA = json.loads(SCHEMA_FILE.read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@sgl.function
def extract(s: Any, text: str) -> None:
    """One utterance to JSON, as the embedded model was trained to do it."""
    s += sgl.system("Turn the utterance into JSON.")
    s += sgl.user(text)
    s += sgl.assistant(sgl.gen("json", max_tokens=256, json_schema=SCHEMA, property_order="any"))


@dataclass
class Score:
    """Counts over rows, and the scores that follow from them."""

    rows: int = 0
    intent: int = 0
    exact: int = 0
    valid: int = 0
    found: int = 0  # slots in the outputs
    wanted: int = 0  # slots in the references
    hits: int = 0  # slots in both, name and value equal

    def add(self, row: dict[str, Any], output: dict[str, Any] | None) -> None:
        """Count one row; `output` is ``None`` if there is none that is valid."""
        slots = {} if output is None else {name: value for name, value in output.items() if name != "intent"}
        intent_right = output is not None and output["intent"] == row["intent"]
        self.rows += 1
        self.valid += output is not None
        self.intent += intent_right
        self.exact += intent_right and slots == row["slots"]
        self.found += len(slots)
        self.wanted += len(row["slots"])
        self.hits += len(slots.items() & row["slots"].items())

    def summary(self, seconds: float) -> dict[str, float]:
        """The result line."""
        n = max(self.rows, 1)
        both = self.found + self.wanted
        return {
            "rows": self.rows,
            "intent": round(self.intent / n, 4),
            "slot_f1": round(2 * self.hits / both, 4) if both else 1.0,
            "exact": round(self.exact / n, 4),
            "valid": round(self.valid / n, 4),
            "rows_per_s": round(self.rows / seconds, 2),
        }


def outputs(
    runtime: Any, texts: list[str], concurrency: int, usage: dict[str, int]
) -> Iterator[dict[str, Any] | None]:
    """The valid output of each text, or ``None``; adds token counts to `usage`."""
    states = extract.run_batch(
        ({"text": text} for text in texts),
        backend=runtime,
        generator_style=True,
        on_error="return",
        num_threads=concurrency,
        temperature=0,
    )
    for state in states:
        if state.error() is not None:
            print(f"error: {state.error()}", file=sys.stderr)
            yield None
            continue
        meta = state.get_meta_info("json")
        for name in usage:
            usage[name] += meta[name]
        yield valid_output(state["json"])


def valid_output(text: str) -> dict[str, Any] | None:
    """The object that an output is, or ``None`` if it is not valid."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if VALIDATOR.is_valid(value) else None


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="Score extraction on SNIPS rows.")
    parser.add_argument("--data", type=Path, required=True, help="JSONL rows with text, intent and slots")
    parser.add_argument("--limit", type=int, default=None, help="only the first rows")
    parser.add_argument("--concurrency", type=int, default=64, help="rows in flight")
    parser.add_argument("--model", default=None, help="model folder or id; default: the embedded model")
    parser.add_argument("--dtype", default="auto", help="type of the weights")
    parser.add_argument("--wrong", action="store_true", help="print the rows that are not exactly right")
    args = parser.parse_args()

    rows = [json.loads(line) for line in args.data.read_text(encoding="utf-8").split("\n") if line.strip()]
    rows = rows[: args.limit]
    score = Score()
    usage = dict.fromkeys(("prompt_tokens", "cached_tokens", "completion_tokens", "forced_tokens"), 0)
    begun = perf_counter()
    with sgl.Runtime(model_path=args.model, dtype=args.dtype) as runtime:
        start = perf_counter()
        for row, output in zip(
            rows, outputs(runtime, [row["text"] for row in rows], args.concurrency, usage), strict=True
        ):
            score.add(row, output)
            if args.wrong and (output or {}) != {"intent": row["intent"], **row["slots"]}:
                print(json.dumps({**row, "output": output}, ensure_ascii=False))
        seconds = perf_counter() - start
    print(f"model loaded in {start - begun:.2f} s; {seconds:.2f} s for the rows; {usage}")
    print(json.dumps(score.summary(seconds)))


if __name__ == "__main__":
    main()
