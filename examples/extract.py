"""Turn sentences into JSON that is valid under a schema: what `sgl-like demo` does, in twenty lines."""

import json
from pathlib import Path

import sgl_like as sgl

DEMO = Path(sgl.__file__).parent / "assets" / "demo"
SCHEMA = json.loads((DEMO / "snips.schema.json").read_text("utf-8"))
UTTERANCES = (DEMO / "utterances.txt").read_text("utf-8").splitlines()


@sgl.function
def extract(s: sgl.ProgramState, utterance: str) -> None:
    s += sgl.system("Turn the utterance into JSON.")
    s += sgl.user(utterance)
    s += sgl.assistant(sgl.gen("json", max_tokens=256, json_schema=SCHEMA, property_order="any"))


with sgl.Runtime() as runtime:
    states = extract.run_batch([{"utterance": u} for u in UTTERANCES], backend=runtime, temperature=0)
    for utterance, state in zip(UTTERANCES, states, strict=True):
        print(f"{utterance}\n    {state['json']}")
