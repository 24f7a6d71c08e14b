"""Time to the first token of a long prompt, new and with its prefix cached, through the server.

    python examples/bench/prefix_ttft.py [--prompt 2000] [--own 50] [--pairs 5] [--serve OPTIONS]

The model has the shape of Qwen2.5-0.5B (24 layers of 896, a vocabulary of 131,072) and random weights, which are as
fast as others; bfloat16. A pair: a prompt that nobody has seen, then another one that shares all but its last `--own`
tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import uvloop
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from sgl_like.cli.bench.datasets import Prompt, RandomTokens
from sgl_like.cli.bench.dialects import Sampling
from sgl_like.cli.bench.launch import launched
from sgl_like.cli.bench.load import Level, Load, Target
from sgl_like.cli.bench.measure import Record

VOCAB = 131_072
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": VOCAB,
    "max_position_embeddings": 32768,
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}


class Pairs:
    """Prompts of which each two share all but the end."""

    def __init__(self, length: int, own: int) -> None:
        self._prefixes = RandomTokens(length - own, 2)
        self._ends = RandomTokens(own, 2)

    def prompts(self, seed: int) -> Iterator[Prompt]:
        """A new one, its fellow, and so on."""
        ends = self._ends.prompts(seed + 1_000_000)
        for prefix in self._prefixes.prompts(seed):
            for _ in range(2):
                end = next(ends).text
                assert isinstance(prefix.text, list) and isinstance(end, list)
                yield Prompt([*prefix.text, *end], 2)


def write_model(folder: Path) -> None:
    """A model without weights: its configuration, and a tokenizer of bytes and as many other pieces as it takes."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: i for i, piece in enumerate(alphabet)}
    vocab.update((f"t{i}", i) for i in range(len(alphabet), VOCAB))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))


def measure(url: str, length: int, own: int, pairs: int) -> list[Record]:
    """One request after another."""

    async def run() -> list[Record]:
        target = Target(url=url, endpoint="generate", sampling=Sampling())
        load = Load(target, Pairs(length, own))
        await load.run(Level(concurrency=1, requests=2, seed=1))  # what is slow the first time
        result = await load.run(Level(concurrency=1, requests=2 * pairs, seed=2))
        load.close()
        return result.records

    return uvloop.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--prompt", type=int, default=2000)
    parser.add_argument("--own", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--serve", default="", help="options of the server")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        options = f"--model {folder} --load-format dummy --dtype bfloat16 {given.serve}"
        with launched(options) as url:
            records = measure(url, given.prompt, given.own, given.pairs)
    assert all(record.outcome == "ok" for record in records), records
    found = [
        (new.ttft or 0, cached.ttft or 0) for new, cached in zip(records[::2], records[1::2], strict=True)
    ]
    for (new, cached), record in zip(found, records[1::2], strict=True):
        print(
            f"new {new * 1e3:,.0f} ms; with {record.cached_tokens:,} of {record.prompt_tokens:,} tokens cached "
            f"{cached * 1e3:,.0f} ms: 1/{new / cached:.1f}"
        )
    new, cached = (statistics.median(column) for column in zip(*found, strict=True))
    print(f"median of {len(found)} pairs: {new * 1e3:,.0f} ms, {cached * 1e3:,.0f} ms: 1/{new / cached:.1f}")


if __name__ == "__main__":
    main()
