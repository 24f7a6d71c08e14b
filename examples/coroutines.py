"""Programs in coroutines: an ``async def`` program, side by side, in a batch, as a stream; the loop stays free.

python examples/coroutines.py
"""

import asyncio

import sgl_like as sgl

UTTERANCES = ["play some jazz", "will it rain in Oslo tomorrow", "a table for two in Rome"]


@sgl.function
async def extract(s: sgl.ProgramState, utterance: str) -> int:
    s += sgl.system("Turn the utterance into JSON.") + sgl.user(utterance)
    s += sgl.assistant(sgl.gen("json", max_tokens=60, temperature=0))
    return len(await s.aget("json"))  # reading is awaited: a blocking read would hold up everybody


async def main() -> None:
    first, second = await asyncio.gather(extract.arun(UTTERANCES[0]), extract.arun(UTTERANCES[1]))
    print(first["json"], first.ret_value, second["json"], second.ret_value)

    async for state in extract.abatch([(utterance,) for utterance in UTTERANCES]):
        print(state["json"])

    async for piece in extract.astream(UTTERANCES[2]).text_async_iter("json"):
        print(piece, end="|")
    print()


if __name__ == "__main__":
    asyncio.run(main())
