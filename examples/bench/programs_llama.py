"""llama.cpp for `programs_peers.py`: its own batch API, prefixes reused as its server does, its grammars for JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

Call = dict[str, Any]


class LlamaCpp:
    """One context of `slots` cells.

    A prompt starts from the longest common prefix with any sequence that is held, whose cells it shares, also with one
    of the same batch, which is then computed before it. The oldest sequences give way.
    """

    def __init__(self, model: Path, folder: Path, slots: int) -> None:
        import llama_cpp

        self.L = llama = llama_cpp
        llama.llama_backend_init()
        path = str(model).encode()
        self.model = llama.llama_model_load_from_file(path, llama.llama_model_default_params())
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = max(slots, 4096), 2048, 512
        params.n_threads = params.n_threads_batch = 2
        params.n_seq_max, params.kv_unified = 128, True
        self.context = llama.llama_init_from_model(self.model, params)
        self.memory = llama.llama_get_memory(self.context)
        self.vocab_size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        self.held: dict[int, list[int]] = {}  # sequence: its tokens; oldest first
        self.used: set[int] = set()
        self.vocab = self._grammar_vocab(folder)

    def _grammar_vocab(self, folder: Path) -> Any:
        """Our vocabulary for the grammar, as a GGUF file that has nothing else."""
        import gguf

        made = json.loads((folder / "tokenizer.json").read_text())["model"]
        tokens = sorted(made["vocab"], key=made["vocab"].get)
        writer = gguf.GGUFWriter(folder / "vocab.gguf", "llama")
        writer.add_vocab_size(len(tokens))
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(tokens)
        writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
        writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in made["merges"]])
        writer.add_eos_token_id(2)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        params = self.L.llama_model_default_params()
        params.vocab_only = True
        self.only_vocab = self.L.llama_model_load_from_file(str(folder / "vocab.gguf").encode(), params)
        return self.L.llama_model_get_vocab(self.only_vocab)

    def forget(self) -> None:
        """Empty the cache."""
        self.L.llama_memory_clear(self.memory, True)
        self.held.clear()

    def drop_oldest(self) -> None:
        """Forget the sequence that was begun first of those that are not in use."""
        seq = next(seq for seq in self.held if seq not in self.used)
        del self.held[seq]
        self.L.llama_memory_seq_rm(self.memory, seq, -1, -1)

    def new_sequence(self) -> int:
        """A number that no sequence has."""
        if len(self.held) == 128:
            self.drop_oldest()
        seq = next(seq for seq in range(128) if seq not in self.held)
        self.held[seq] = []
        self.used.add(seq)
        return seq

    def feed(self, rows: list[tuple[int, int, bool]]) -> list[Any]:
        """(token, sequence, whether its logits are wanted) at the sequences' ends; the wanted logits."""
        out = []
        for at in range(0, len(rows), 2048):
            part = rows[at : at + 2048]
            batch = self.L.llama_batch_init(len(part), 0, 1)
            batch.n_tokens = len(part)
            for i, (token, seq, wanted) in enumerate(part):
                batch.token[i], batch.pos[i], batch.logits[i] = token, len(self.held[seq]), wanted
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, seq
                self.held[seq].append(token)
            while (code := self.L.llama_decode(self.context, batch)) == 1:  # no cells left
                self.drop_oldest()
            assert code == 0, code
            for i, (_, _, wanted) in enumerate(part):
                if wanted:
                    pointer = self.L.llama_get_logits_ith(self.context, i)
                    out.append(np.ctypeslib.as_array(pointer, (self.vocab_size,)).copy())
            self.L.llama_batch_free(batch)
        return out

    def begin(self, prompts: list[list[int]]) -> list[int]:
        """Compute prompts side by side; their sequences, the logits at whose ends are found."""
        sequences = []
        later: list[tuple[int, list[int], int]] = []
        first: list[tuple[int, int, bool]] = []
        fresh: list[tuple[int, list[int]]] = []
        for prompt in prompts:
            limit = len(prompt) - 1
            known = [(common(prompt, tokens)[:limit], seq) for seq, tokens in self.held.items() if tokens]
            best, donor = max(known, key=lambda pair: len(pair[0]), default=([], -1))
            near = [(common(prompt, other)[:limit], seq) for seq, other in fresh]
            shared, beside = max(near, key=lambda pair: len(pair[0]), default=([], -1))
            seq = self.new_sequence()
            sequences.append(seq)
            if len(shared) > len(best):
                later.append((seq, prompt, beside))
                continue
            if donor in self.held:
                self.copy(donor, seq, len(best))
            fresh.append((seq, prompt))
            first += ends(seq, prompt[len(self.held[seq]) :])
        self.feed(first)
        second: list[tuple[int, int, bool]] = []
        for seq, prompt, beside in later:
            self.copy(beside, seq, len(common(prompt, self.held[beside])[: len(prompt) - 1]))
            second += ends(seq, prompt[len(self.held[seq]) :])
        self.feed(second)
        return sequences

    def copy(self, source: int, seq: int, count: int) -> None:
        """Let a sequence begin with the first `count` tokens of another."""
        if count:
            self.L.llama_memory_seq_cp(self.memory, source, seq, 0, count)
        self.held[seq] = self.held[source][:count]

    def run(self, calls: list[Call]) -> None:
        """Generate, or score the choices of, calls that run side by side."""
        self.used.clear()
        sequences = self.begin([call["prompt"] for call in calls])
        if calls[0].get("choices"):
            rows = []
            for call, seq in zip(calls, sequences, strict=True):
                for choice in call["choices"]:
                    own = self.new_sequence()
                    self.copy(seq, own, len(call["prompt"]))
                    rows += [(token, own, True) for token in choice[:-1]]
            for logits in self.feed(rows):
                np.log(np.exp(logits - logits.max()).sum())
            return
        grammars = [self.grammar(call["schema"]) for call in calls]
        longest = max(len(call["output"]) for call in calls)
        for step in range(longest):
            rows = []
            for call, seq, grammar in zip(calls, sequences, grammars, strict=True):
                if step < len(call["output"]):
                    token = call["output"][step]
                    if grammar is not None:
                        self.check(grammar, token)
                    if step + 1 < len(call["output"]):
                        rows.append((token, seq, True))
            for logits in self.feed(rows):
                logits.argmax()
        for grammar in grammars:
            if grammar is not None:
                self.L.llama_sampler_free(grammar)

    def grammar(self, schema: str | None) -> Any:
        """A sampler that holds output to a schema."""
        if schema is None:
            return None
        text = self.L.llama_grammar.json_schema_to_gbnf(schema)
        made = self.L.llama_sampler_init_grammar(self.vocab, text.encode(), b"root")
        assert made, "llama.cpp cannot read the grammar"
        return made

    def check(self, grammar: Any, token: int) -> None:
        """What llama.cpp does when the likeliest token is allowed: look at that one only, and take it."""
        one = (self.L.llama_token_data * 1)(self.L.llama_token_data(id=token, logit=1.0, p=0.0))
        array = self.L.llama_token_data_array(data=one, size=1, selected=-1, sorted=False)
        self.L.llama_sampler_apply(grammar, array)
        assert np.isfinite(one[0].logit), f"the grammar does not allow token {token}"
        self.L.llama_sampler_accept(grammar, token)


def common(a: list[int], b: list[int]) -> list[int]:
    """The longest common prefix."""
    end = min(len(a), len(b))
    different = np.flatnonzero(np.array(a[:end]) != np.array(b[:end]))
    return a[: int(different[0]) if len(different) else end]


def ends(seq: int, tokens: list[int]) -> list[tuple[int, int, bool]]:
    """Rows for `LlamaCpp.feed`, the last of them with logits."""
    return [(token, seq, i == len(tokens) - 1) for i, token in enumerate(tokens)]
