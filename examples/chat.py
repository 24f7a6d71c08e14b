"""A conversation as one program: every turn goes on from the tokens of the turns before it, and finds them cached.

python examples/chat.py [--model PATH_OR_ID] [question ...]
"""

import argparse

import sgl_like as sgl

QUESTIONS = ["play some jazz", "book a table for two in Rome", "will it rain there tomorrow"]


@sgl.function
def chat(s: sgl.ProgramState, questions: list[str]) -> None:
    s += sgl.system("Turn the utterance into JSON.")
    for number, question in enumerate(questions):
        s += sgl.user(question)
        s += sgl.assistant(sgl.gen(f"answer {number}", max_tokens=100, temperature=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or hub id; default: the embedded model")
    parser.add_argument("questions", nargs="*", default=QUESTIONS)
    args = parser.parse_args()
    with sgl.Runtime(args.model) as runtime:
        state = chat.run(args.questions, backend=runtime)
        for number, question in enumerate(args.questions):
            meta = state.get_meta_info(f"answer {number}")
            print(f"> {question}\n{state[f'answer {number}']}")
            print(f"  ({meta['cached_tokens']} of {meta['prompt_tokens']} prompt tokens from the cache)")


if __name__ == "__main__":
    main()
