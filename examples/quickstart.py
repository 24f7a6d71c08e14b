"""The language in one page: roles, gen, select, fork, a batch, a stream. Runs offline on the embedded model."""

import sgl_like as sgl


@sgl.function
def puzzle(s: sgl.ProgramState, question: str) -> None:
    s += sgl.system("Solve the puzzle.")
    s += sgl.user(question)
    with s.assistant():
        tries = s.fork(3)  # three copies, side by side; what stands before them is computed once
        tries += lambda i: sgl.gen("try", max_tokens=60, temperature=0.8, seed=i)
        tries.join()
    s["distinct"] = sorted(set(s["try"]))


@sgl.function
def intent(s: sgl.ProgramState, utterance: str) -> None:
    s += sgl.system("Turn the utterance into JSON.") + sgl.user(utterance)
    s += sgl.assistant('{"intent":"' + sgl.select("intent", ["PlayMusic", "BookRestaurant", "GetWeather"]))


@sgl.function
def extract(s: sgl.ProgramState, utterance: str) -> None:
    s += sgl.system("Turn the utterance into JSON.") + sgl.user(utterance)
    s += sgl.assistant(sgl.gen("json", max_tokens=100, temperature=0))


state = puzzle("Reach 17 with 3, 5, 2.")
print("three tries:", *state["distinct"], sep="\n  ")

utterances = ["play some jazz", "will it rain in Oslo tomorrow", "a table for two in Rome"]
for utterance, state in zip(
    utterances, intent.run_batch([{"utterance": u} for u in utterances]), strict=True
):
    probability = state.get_meta_info("intent")["choice_probs"][state["intent"]]
    print(f"{utterance}: {state['intent']} ({probability:.0%})")

state = extract.stream("add Paper Lanterns to my Road Trip playlist")
for piece in state.text_iter("json"):
    print(piece, end="", flush=True)
print()
