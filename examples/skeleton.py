"""Skeleton of thought: first the outline of the whole answer, then every point of it in detail, side by side.

    python examples/skeleton.py [--model PATH_OR_ID]

Several wishes are to become a list of JSON objects. A fork for each wish first decides what kind it is; when all
kinds are known, which is the skeleton, the same forks go on with the details. Nothing is computed twice.
"""

import argparse
import json

import sgl_like as sgl

WISHES = [
    "book a table for four at a sushi bar in Portland",
    "play something by Miles Davis on Spotify",
    "what is the weather like in Lisbon next monday",
    "add Paper Lanterns to my Road Trip playlist",
]
KINDS = [
    "AddToPlaylist", "BookRestaurant", "GetWeather", "PlayMusic", "RateBook", "SearchCreativeWork",
    "SearchScreeningEvent",
]  # fmt: skip
DETAILS = r'"(,"[a-z_]+":"[^"\\\n]*"){0,8}\}'


@sgl.function
def plan(s: sgl.ProgramState, wishes: list[str]) -> list[str]:
    s += sgl.system("Turn the utterance into JSON.")
    points = s.fork(len(wishes))
    points += [sgl.user(wish) + sgl.assistant_begin() + '{"intent":"' for wish in wishes]
    points += sgl.select("kind", KINDS)
    skeleton = points["kind"]
    points += sgl.gen("details", regex=DETAILS, max_tokens=80, temperature=0) + sgl.assistant_end()
    points.join()
    return [f'{{"intent":"{kind}{details}' for kind, details in zip(skeleton, s["details"], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or hub id; default: the embedded model")
    with sgl.Runtime(parser.parse_args().model) as runtime:
        state = plan.run(WISHES, backend=runtime)
        print("skeleton:", ", ".join(state["kind"]))
        print(json.dumps([json.loads(each) for each in state.ret_value], indent=1))


if __name__ == "__main__":
    main()
