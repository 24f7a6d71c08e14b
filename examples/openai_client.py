"""OpenAI's client on a model of this process: `Runtime.url` is the address of a server like `sgl-like serve`."""

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

import sgl_like as sgl


class Song(BaseModel):
    """What the answer has to be."""

    intent: str
    genre: str


UTTERANCE: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Turn the utterance into JSON."},
    {"role": "user", "content": "play some jazz"},
]
PUZZLE: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Solve the puzzle."},
    {"role": "user", "content": "Reach 17 with 3, 5, 2."},
]

with sgl.Runtime() as runtime:
    chats = OpenAI(base_url=f"{runtime.url}/v1", api_key="none").chat.completions
    answer = chats.parse(model="tiny", messages=UTTERANCE, response_format=Song, temperature=0)
    print(repr(answer.choices[0].message.parsed))
    with chats.stream(model="tiny", messages=PUZZLE, temperature=0) as stream:
        for event in stream:
            if event.type == "content.delta":
                print(event.delta, end="", flush=True)
    print()
