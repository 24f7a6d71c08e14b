"""Programs on llama-cpp-python's server beside the same programs in this process.

Writes the embedded demonstration model as a GGUF file, starts ``python -m llama_cpp.server`` on it, and runs a few
programs on both: greedy text, a schema, a grammar, regexes, several gens in one request, a choice, a stream, a batch.
Prints what each backend said, and whether they agree. The server's Python needs ``llama-cpp-python[server]``,
``gguf``, ``torch`` and ``safetensors``:

    python examples/bench/remote_llama_cpp.py --server-python /path/to/venv/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TINY = Path(__file__).parents[2] / "sgl_like/assets/tiny"
TENSORS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def convert(folder: Path, out: Path) -> None:
    """Write a Llama of Hugging Face's layout with a byte-level BPE tokenizer as a GGUF file of float32."""
    from gguf import GGUFWriter, TokenType
    from safetensors import safe_open

    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    writer = GGUFWriter(str(out), "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])

    vocab = {**tokenizer["model"]["vocab"], **{t["content"]: t["id"] for t in tokenizer["added_tokens"]}}
    special = {t["content"] for t in tokenizer["added_tokens"] if t["special"]}
    texts = {token: text for text, token in vocab.items()}
    tokens = [texts.get(token, f"<unused {token}>") for token in range(config["vocab_size"])]
    kinds = [TokenType.CONTROL if text in special else TokenType.NORMAL for text in tokens]
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(
        "gpt-2"
    )  # the nearest that llama.cpp has: it keeps a blank with the word after it
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(settings["chat_template"])

    with safe_open(str(folder / "model.safetensors"), "pt") as tensors:

        def add(name: str, source: str, heads: int = 0) -> None:
            value = tensors.get_tensor(source).float()
            if heads:  # llama.cpp rotates neighbouring pairs, Hugging Face the two halves of a head
                half = value.shape[0] // heads // 2
                value = value.reshape(heads, 2, half, -1).transpose(1, 2).reshape(value.shape)
            writer.add_tensor(name, value.contiguous().numpy())

        add("token_embd.weight", "model.embed_tokens.weight")
        add("output_norm.weight", "model.norm.weight")
        for layer in range(config["num_hidden_layers"]):
            for source, name in TENSORS.items():
                heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
                add(f"blk.{layer}.{name}.weight", f"model.layers.{layer}.{source}.weight", heads.get(name, 0))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def started(python: str, model: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A server on a free port that answers; and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        python,
        "-m",
        "llama_cpp.server",
        "--model",
        str(model),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    options = ["--n_ctx", "1024", "--n_threads", "2", "--model_alias", "tiny"]
    process = subprocess.Popen(
        command + options, stdout=log.open("wb"), stderr=subprocess.STDOUT, env=environment
    )
    for _ in range(120):
        if process.poll() is not None:
            raise SystemExit(f"the server ended:\n{log.read_text()[-2000:]}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process, f"http://127.0.0.1:{port}"
        time.sleep(0.5)
    process.kill()
    raise SystemExit(f"the server does not answer:\n{log.read_text()[-2000:]}")


def programs() -> dict[str, Any]:
    """The programs to compare, each with its arguments."""
    import sgl_like as sgl

    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "day": {"enum": ["monday", "friday"]}},
        "required": ["city", "day"],
        "additionalProperties": False,
    }

    @sgl.function
    def greedy(s: Any) -> None:
        s += sgl.user("book a table for two in Paris on friday") + sgl.assistant(sgl.gen("x", max_tokens=24))

    @sgl.function
    def plain(s: Any) -> None:
        s += "book a table for" + sgl.gen("x", max_tokens=8, stop="\n")

    @sgl.function
    def structured(s: Any) -> None:
        s += sgl.user("play some jazz in Paris on friday")
        s += sgl.assistant(sgl.gen("x", max_tokens=48, json_schema=schema))

    @sgl.function
    def grammar(s: Any) -> None:
        s += sgl.user("how many?") + sgl.assistant(
            sgl.gen("x", max_tokens=8, ebnf='root ::= [0-9] "," [0-9]')
        )

    @sgl.function
    def typed(s: Any) -> None:
        s += sgl.user("how many?") + sgl.assistant(sgl.gen_int("x", max_tokens=6))

    @sgl.function
    def pattern(s: Any) -> None:
        s += sgl.user("when?") + sgl.assistant(
            sgl.gen("x", max_tokens=24, regex=r"(mon|fri)day at \d{1,2}(am|pm)")
        )

    @sgl.function(num_api_spec_tokens=32)
    def speculated(s: Any) -> None:
        s += sgl.user("play some jazz")
        s += sgl.assistant('{"intent":"' + sgl.gen("intent", stop='"') + '","' + sgl.gen("x"))

    @sgl.function
    def choice(s: Any) -> None:
        s += sgl.user("play some jazz")
        s += sgl.assistant(sgl.select("x", ["PlayMusic", "BookRestaurant", "GetWeather"]))

    @sgl.function
    def turns(s: Any) -> None:
        for question in ("play some jazz", "what is the weather in Rome"):
            s += sgl.user(question) + sgl.assistant(sgl.gen("x", max_tokens=16))

    return {
        each.name: each
        for each in (greedy, plain, structured, grammar, typed, pattern, speculated, choice, turns)
    }


def usage_of(state: Any) -> str:
    """How many tokens a run took."""
    return f"({state.usage.prompt_tokens} + {state.usage.completion_tokens} tokens)"


def main() -> None:
    """Convert, serve, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server-python", default=sys.executable)
    parser.add_argument("--convert", nargs=2, metavar=("FOLDER", "OUT"), help="only write a GGUF file")
    arguments = parser.parse_args()
    if arguments.convert:
        convert(*map(Path, arguments.convert))
        return
    import sgl_like as sgl

    with tempfile.TemporaryDirectory() as folder:
        model, log = Path(folder) / "tiny.gguf", Path(folder) / "server.log"
        subprocess.run([arguments.server_python, __file__, "--convert", str(TINY), str(model)], check=True)
        process, url = started(arguments.server_python, model, log)
        try:
            remote, local = sgl.OpenAICompatible(url), sgl.Runtime()
            print(f"{remote!r}")
            for name, program in programs().items():
                said = [program.run(backend=each, temperature=0) for each in (remote, local)]
                failed = next((state.error() for state in said if state.error()), None)
                if failed:
                    print(f"{name:11} FAILED: {failed}")
                    continue
                same = "same" if said[0]["x"] == said[1]["x"] else "differ"
                print(f"{name:11} {same}: {said[0]['x']!r} / {said[1]['x']!r}  {usage_of(said[0])}")
            stream = programs()["greedy"].run(backend=remote, temperature=0, stream=True)
            pieces = list(stream.text_iter("x"))
            print(f"stream      {len(pieces)} pieces, {''.join(pieces)!r}")
            states = programs()["greedy"].run_batch([{}] * 8, backend=remote, temperature=0)
            print(f"batch       {len({state['x'] for state in states})} different of {len(states)}")
            refused = programs()["greedy"].run(backend=remote, stop_regex="a")
            print(f"refused     {refused.error()}")
            print(f"usage       {remote.token_usage}")
            remote.shutdown()
            local.shutdown()
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
