"""Masks of a whole batch in one call, against a call for each matcher.

    python examples/bench/constraint_batch.py --bench ../shared/bench/constraints

`fill_masks` of 64 matchers against 64 calls of `fill_mask`, in the vocabulary of 131,072 tokens. The matchers stand at
different places of several schemas: those schemas of the list that compile and whose longest valid instance has the
most tokens up to `--most-tokens`; with 8 matchers on each, spread evenly over that instance.

Warm: the masks of these places were filled before. Cold: by a new compiler with a new vocabulary, so that nothing is
known but what reading the instance up to the place teaches. Both ways are timed in pairs, in turns which is first, and
compared bit by bit; the table has medians of the times (whole batch and for one matcher) and of the pairs' ratios.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

if importlib.util.find_spec("sgl_like") is None:  # the races' environment need not have the project installed
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.base import Matcher
from sgl_like.runtime.constrain.batch import fill_masks
from sgl_like.runtime.constrain.compiler import GrammarCompiler
from sgl_like.runtime.constrain.vocabulary import Vocabulary

STYLE: dict[str, Any] = {"property_order": "any", "separators": (", ", ": ")}  # as the races write instances


@dataclass(frozen=True)
class Place:
    """A schema and the tokens of an output under it so far."""

    schema: Any
    tokens: list[int]


def singly(matchers: list[Matcher], out: NDArray[np.int32]) -> None:
    """One call for each."""
    for row, matcher in enumerate(matchers):
        matcher.fill_mask(out, row)


def in_one_call(matchers: list[Matcher], out: NDArray[np.int32]) -> None:
    """One call for all."""
    fill_masks(matchers, out)


WAYS: tuple[Callable[[list[Matcher], NDArray[np.int32]], None], ...] = (singly, in_one_call)


def places(options: argparse.Namespace, vocab: Any, compiler: GrammarCompiler) -> list[Place]:
    """Where the matchers stand, schema by schema in turns."""
    found: list[tuple[int, str, Any, list[int]]] = []
    for name in (options.bench / options.list).read_text("utf-8").split():
        case = json.loads((options.bench / "cases" / name).read_text("utf-8"))
        texts = [json.dumps(test["data"], ensure_ascii=False) for test in case["tests"] if test["valid"]]
        tokens: list[int] = max((vocab.encode(text) for text in texts), key=len, default=[])
        if "schema" in case and options.matchers // options.schemas <= len(tokens) <= options.most_tokens:
            found.append((len(tokens), name, case["schema"], tokens))
    chosen: list[tuple[Any, list[int]]] = []
    for _, name, schema, tokens in sorted(found, key=lambda entry: entry[:2], reverse=True):
        if len(chosen) < options.schemas and follows(compiler, Place(schema, tokens)):
            print(f"{name}: {len(tokens)} tokens", file=sys.stderr)
            chosen.append((schema, tokens))
    each = -(-options.matchers // len(chosen))
    spread = [
        Place(schema, tokens[: len(tokens) * k // each]) for k in range(each) for schema, tokens in chosen
    ]
    return spread[: options.matchers]


def matchers_at(compiler: GrammarCompiler, spots: list[Place]) -> list[Matcher]:
    """A matcher at each place, without any mask being asked for."""
    made: list[Matcher] = []
    for spot in spots:
        matcher = compiler.compile_json_schema(spot.schema, **STYLE).matcher()
        if not all(map(matcher.accept_token, spot.tokens)):
            raise ValueError("the instance is not allowed")
        made.append(matcher)
    return made


def follows(compiler: GrammarCompiler, spot: Place) -> bool:
    """Whether the schema compiles and allows these tokens."""
    try:
        return bool(matchers_at(compiler, [spot]))
    except (ConstraintError, ValueError):
        return False


def timed_pairs(
    make: Callable[[], list[Matcher]], pairs: int, words: int
) -> tuple[list[list[float]], list[NDArray[np.int32]]]:
    """Seconds of each of `WAYS`, pair by pair, with matchers that `make` gives, and the masks that came out last."""
    seconds: list[list[float]] = [[], []]
    out: list[Any] = [None, None]
    for pair in range(pairs):
        for way in ((0, 1), (1, 0))[pair % 2]:
            matchers = make()
            out[way] = np.full((len(matchers), words), 0x55555555, np.int32)
            begun = perf_counter()
            WAYS[way](matchers, out[way])
            seconds[way].append(perf_counter() - begun)
        assert np.array_equal(*out), "the two ways give different masks"
    return seconds, out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--bench", type=Path, default=Path("../shared/bench/constraints"), help="the races' folder"
    )
    parser.add_argument(
        "--site", action="append", default=[], help="site-packages with mistral_common, tiktoken: put last"
    )
    parser.add_argument("--list", default="dev.txt", help="file with names of cases, in the races' folder")
    parser.add_argument("--matchers", type=int, default=64)
    parser.add_argument("--schemas", type=int, default=8)
    parser.add_argument("--most-tokens", type=int, default=1_000)
    parser.add_argument("--pairs", type=int, default=200, help="warm pairs")
    parser.add_argument("--cold-pairs", type=int, default=5)
    options = parser.parse_args()
    options.bench = options.bench.resolve()
    sys.path.insert(0, str(options.bench))
    sys.path += options.site
    from tekken_vocab import Vocab

    vocab = Vocab()
    pieces = [vocab.token_bytes(i) or None for i in range(vocab.size)]

    def new_compiler() -> GrammarCompiler:
        return GrammarCompiler(Vocabulary(pieces, [vocab.eos]))

    compiler = new_compiler()
    spots = places(options, vocab, compiler)
    words = compiler.vocabulary.words
    warm = matchers_at(compiler, spots)
    rows = {
        "cold": timed_pairs(lambda: matchers_at(new_compiler(), spots), options.cold_pairs, words),
        "warm": timed_pairs(lambda: warm, options.pairs + 2, words),
    }
    assert np.array_equal(rows["cold"][1][0], rows["warm"][1][0]), "cold and warm masks differ"
    print(
        f"| {len(spots)} matchers | fill_mask each | fill_masks | each, for one | in one call | ratio of pairs |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for name, (seconds, _) in rows.items():
        skip = 2 if name == "warm" else 0  # the first of each way fill the caches
        one, all_ = (times[skip:] for times in seconds)
        ratio = median(a / b for a, b in zip(one, all_, strict=True))
        times = [f"{median(one) * 1e3:.3f} ms", f"{median(all_) * 1e3:.3f} ms"]
        times += [f"{median(x) / len(spots) * 1e6:.2f} us" for x in (one, all_)]
        print(f"| {name}, {len(one)} pairs | {' | '.join(times)} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
