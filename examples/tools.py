"""Python functions as tools: the model writes the call, held to the function's types; it runs, and the model goes on.

    python examples/tools.py --model PATH_OR_ID ["question"]

The embedded model has never seen a tool. Its calls are valid, because they cannot be anything else, but which lamp it
takes is chance; give `--model` to see sense.
"""

import argparse
from collections.abc import Callable
from typing import Literal

import sgl_like as sgl

lamps = {"kitchen": False, "hall": False, "garden": False}


def switch(lamp: Literal["kitchen", "hall", "garden"], on: bool) -> str:
    """Switch a lamp on or off.

    Args:
        lamp: which one.
        on: whether it shall be on.
    """
    lamps[lamp] = on
    return f"the {lamp} lamp is {'on' if on else 'off'}"


def status() -> dict[str, bool]:
    """Which lamps are on."""
    return lamps


TOOLS: list[Callable[..., object]] = [switch, status]


@sgl.function
def butler(s: sgl.ProgramState, question: str, model_can: bool) -> None:
    if model_can:
        s += sgl.system(sgl.tool_instructions(TOOLS))
    s += sgl.user(question)
    choice = "auto" if model_can else "switch"
    rounds = 4 if model_can else 1
    s += sgl.assistant(
        sgl.gen(
            "answer", tools=TOOLS, tool_choice=choice, max_tool_rounds=rounds, max_tokens=60, temperature=0
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or hub id; default: the embedded model")
    parser.add_argument("question", nargs="?", default="It is dark in the hall, please help.")
    args = parser.parse_args()
    with sgl.Runtime(args.model) as runtime:
        state = butler.run(args.question, args.model is not None, backend=runtime)
        for call in state["answer"].tool_calls:
            print(f"{call.name}({call.arguments}) -> {call.shown}")
        print("answer:", state["answer"])


if __name__ == "__main__":
    main()
