"""Many documents, one question: documents are encoded side by side in forks and put together with `join`.

    python examples/documents.py [--model PATH_OR_ID]

Every document's tokens stay as they were encoded, so another question about the same documents finds them all in
the cache. The documents here are notes about one booking, the question is the schema of the answer.
"""

import argparse

import sgl_like as sgl

NOTES = ["book a table for four", " at a sushi bar", " in Portland", " next friday at 7 pm"]
QUESTIONS = {
    "everything": ["party_size_number", "restaurant_type", "city", "timeRange"],
    "how many": ["party_size_number"],
}


def schema(fields: list[str]) -> dict[str, object]:
    properties: dict[str, object] = {"intent": {"const": "BookRestaurant"}}
    properties |= {field: {"type": "string", "maxLength": 30} for field in fields}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@sgl.function
def ask(s: sgl.ProgramState, notes: list[str], fields: list[str]) -> None:
    s += sgl.system("Turn the utterance into JSON.")
    with s.user():
        documents = s.fork(len(notes))
        documents += notes
        documents.join("concate_and_append")
    s += sgl.assistant(sgl.gen("answer", json_schema=schema(fields), max_tokens=100, temperature=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or hub id; default: the embedded model")
    with sgl.Runtime(parser.parse_args().model) as runtime:
        for name, fields in QUESTIONS.items():
            state = ask.run(NOTES, fields, backend=runtime)
            meta = state.get_meta_info("answer")
            print(f"{name}: {state['answer']}")
            print(f"  ({meta['cached_tokens']} of {meta['prompt_tokens']} prompt tokens from the cache)")


if __name__ == "__main__":
    main()
