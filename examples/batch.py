"""A batch that survives: stop it, even by `kill -9`, run it again, and it goes on with the rows that are missing.

python examples/batch.py CHECKPOINT.jsonl [--rows N] [--model PATH_OR_ID]
"""

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import sgl_like as sgl

DEMO = Path(sgl.__file__).parent / "assets" / "demo"
SCHEMA = json.loads((DEMO / "snips.schema.json").read_text("utf-8"))
executed: list[str] = []


@sgl.function
def extract(s: sgl.ProgramState, utterance: str) -> None:
    executed.append(utterance)
    s += sgl.system("Turn the utterance into JSON.")
    s += sgl.user(utterance)
    s += sgl.assistant(sgl.gen("json", max_tokens=256, json_schema=SCHEMA, property_order="any"))


def rows() -> Iterator[dict[str, str]]:
    with (DEMO / "utterances.txt").open(encoding="utf-8") as lines:  # read as far as rows are needed
        for line in lines:
            yield {"utterance": line.strip()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="JSONL file; a line for each row that has ended")
    parser.add_argument("--rows", type=int, help="only the first so many")
    parser.add_argument("--model", help="folder or hub id; default: the embedded model")
    args = parser.parse_args()
    done = 0
    with sgl.Runtime(args.model) as runtime:
        for state in extract.run_batch(
            islice(rows(), args.rows), backend=runtime, temperature=0, checkpoint=args.checkpoint,
            max_retries=2, timeout=60, as_completed=True, generator_style=True,
        ):  # fmt: skip
            done += 1
            print(f"row {state.row}: {state.error() or state['json']}", flush=True)
    print(f"{len(executed)} rows were run, {done - len(executed)} were in the checkpoint")


if __name__ == "__main__":
    main()
