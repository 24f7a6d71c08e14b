"""A batch that survives: every finished row is in a file at once, and a later run does only what is missing.

    python examples/resume.py [--checkpoint FILE] [--stop-after ROWS]

Stop it with `--stop-after`, Ctrl-C or even ``kill -9``, and give the same command again.
"""

import argparse
import itertools
import tempfile
from pathlib import Path

import sgl_like as sgl

UTTERANCES = (
    (Path(sgl.__file__).parent / "assets" / "demo" / "utterances.txt").read_text("utf-8").splitlines()
)
ran: list[str] = []


@sgl.function
def extract(s: sgl.ProgramState, utterance: str) -> None:
    ran.append(utterance)
    s += sgl.system("Turn the utterance into JSON.") + sgl.user(utterance)
    s += sgl.assistant(sgl.gen("json", max_tokens=100))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", default=Path(tempfile.gettempdir(), "sgl-like-resume.jsonl"), type=Path
    )
    parser.add_argument("--stop-after", type=int)
    args = parser.parse_args()
    states = extract.run_batch(
        [(utterance,) for utterance in UTTERANCES],
        checkpoint=args.checkpoint,
        generator_style=True,
        max_retries=2,
        timeout=60,
        num_threads=4,
        temperature=0,
    )
    for number, state in enumerate(itertools.islice(states, args.stop_after)):
        print(number, state.error() or state["json"])
    states.close()
    print(f"{len(ran)} of {len(UTTERANCES)} rows were run, the others read from {args.checkpoint}")


if __name__ == "__main__":
    main()
