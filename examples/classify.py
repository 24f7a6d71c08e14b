"""Few-shot classification with `select`: examples in the prompt, shared by all rows, and probabilities.

python examples/classify.py [--model PATH_OR_ID]
"""

import argparse
from pathlib import Path

import sgl_like as sgl

SHOTS = [
    ("put Blue Train on my jazz playlist", "AddToPlaylist"),
    ("book a table for three at a diner in Ohio", "BookRestaurant"),
    ("what will the weather be in Bergen on friday", "GetWeather"),
    ("play some music by Nina Simone", "PlayMusic"),
    ("give this novel four out of six stars", "RateBook"),
    ("find me the song Hurricane Season", "SearchCreativeWork"),
    ("when is the next animated film at the nearest cinema", "SearchScreeningEvent"),
]
LABELS = [label for _, label in SHOTS]
UTTERANCES = Path(sgl.__file__).parent / "assets" / "demo" / "utterances.txt"


@sgl.function
def classify(s: sgl.ProgramState, utterance: str) -> None:
    s += sgl.system("Turn the utterance into JSON.")
    for text, label in SHOTS:
        s += sgl.user(text) + sgl.assistant('{"intent":"' + label + '"}')
    s += sgl.user(utterance) + sgl.assistant('{"intent":"' + sgl.select("label", LABELS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or hub id; default: the embedded model")
    utterances = UTTERANCES.read_text("utf-8").splitlines()
    with sgl.Runtime(parser.parse_args().model) as runtime:
        states = classify.run_batch([{"utterance": u} for u in utterances], backend=runtime)
        cached = sum(state.usage.cached_tokens for state in states)
        prompt = sum(state.usage.prompt_tokens for state in states)
    for utterance, state in zip(utterances, states, strict=True):
        probability = state.get_meta_info("label")["choice_probs"][state["label"]]
        print(f"{state['label']:21} {probability:4.0%}  {utterance}")
    print(f"{cached:,} of {prompt:,} prompt tokens came from the cache")


if __name__ == "__main__":
    main()
