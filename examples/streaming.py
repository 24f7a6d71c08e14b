"""Text as it arrives: of one variable, of the whole conversation, and in a coroutine.

    python examples/streaming.py [--model PATH_OR_ID]

A reader may start late, be slow, or be one of many: the pieces always join to the whole text.
"""

import argparse
import asyncio

import sgl_like as sgl


@sgl.function
def two_answers(s: sgl.ProgramState) -> None:
    s += sgl.system("Turn the utterance into JSON.")
    s += sgl.user("play some jazz on Spotify")
    s += sgl.assistant(sgl.gen("first", max_tokens=60, temperature=0))
    s += sgl.user("will it rain in Oslo tomorrow")
    s += sgl.assistant(sgl.gen("second", max_tokens=60, temperature=0))


async def read(state: sgl.ProgramState, name: str) -> str:
    pieces = [piece async for piece in state.text_async_iter(name)]
    return f"{name} came in {len(pieces)} pieces: {''.join(pieces)}"


async def read_both(state: sgl.ProgramState) -> tuple[str, str]:
    return await asyncio.gather(read(state, "first"), read(state, "second"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or hub id; default: the embedded model")
    with sgl.Runtime(parser.parse_args().model) as runtime:
        state = two_answers.stream(backend=runtime)
        for piece in state.text_iter("first"):
            print(piece, end="|", flush=True)
        print()
        for piece in state.text_iter():
            print(piece, end="", flush=True)
        print()
        print(*asyncio.run(read_both(two_answers.stream(backend=runtime))), sep="\n")


if __name__ == "__main__":
    main()
