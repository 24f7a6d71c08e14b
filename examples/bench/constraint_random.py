"""Random generations under the schemas of MaskBench: every output must be valid, and none may get stuck.

    python examples/bench/constraint_random.py --bench ../shared/bench/constraints --generations 10000
    python examples/bench/constraint_random.py --bench ... --shard 0/2 &    # two processes, half of the schemas each
    python examples/bench/constraint_random.py --bench ... --shard 1/2
    python examples/bench/constraint_random.py --bench ... --only NAME.json --number 7    # one of them again

There is no model: each token is chosen at random among those that the mask allows, from the 131,072 tokens of Tekken.
Most of these are pieces of text, so in every second step (`--by-byte`) the first byte is chosen first, out of those
allowed, and then a token that begins with it: quotes, commas and brackets come often, and so do characters that are cut
in the middle. Half of the outputs stop after `--max-tokens`, half after a random number below it; what has not ended
by then ends with `Matcher.shortest_completion`.

An output must be UTF-8, JSON without repeated names or lone surrogates, and valid under `jsonschema` with numbers as
exact decimals. Formats are checked where the engine enforces them, which is found out by offering it a string that has
none of them; `jsonschema` knows most formats only with its extra `format`. Its patterns are Python's: a difference in
what whitespace or ``$`` is shows up here too.

Each generation has random numbers of its own, from `--seed`, its schema's name and its number. The last line is one
JSON object, and the exit status is 1 if anything is invalid, stuck or crashed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal, getcontext
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from jsonschema import Draft3Validator, Draft4Validator, Draft202012Validator, ValidationError, validators
from jsonschema_specifications import REGISTRY
from numpy.typing import NDArray

if importlib.util.find_spec("sgl_like") is None:  # the races' environment need not have the project installed
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from sgl_like.errors import ConstraintError, ConstraintTooComplex, UnsupportedSchemaError
from sgl_like.runtime.constrain.compiler import CompiledGrammar, GrammarCompiler
from sgl_like.runtime.constrain.vocabulary import Vocabulary

STYLES = ["{}", '{"property_order": "any", "separators": [", ", ": "]}']
NO_FORMAT = "~ ("
"""A string that is no date, time, address, reference, name, pointer or regex."""

BAD = ("dead end", "not UTF-8", "not JSON", "repeated name", "lone surrogate", "not valid", "crash")


class Stuck(Exception):
    """The matcher contradicts itself, or has no token to go on with."""


class Overtime(Exception):
    """One generation took longer than it may."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise Overtime if the block takes longer; only in the main thread."""

    def stop(*_: Any) -> None:
        raise Overtime(f"over {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Picker:
    """Chooses a token at random.

    Args:
        vocabulary: its tokens.
        by_byte: how often the first byte is chosen before the token.
    """

    def __init__(self, vocabulary: Vocabulary, by_byte: float) -> None:
        self.pieces = vocabulary.token_bytes
        self.by_byte = by_byte
        # First byte of each token; the end of the output counts as one more byte.
        self.first = np.array([piece[0] if piece else 256 for piece in self.pieces])

    def pick(self, mask: NDArray[np.int32], rng: random.Random) -> int:
        """A token id that `mask` (int32 [words]) allows."""
        bits = np.unpackbits(mask.view(np.uint8), count=len(self.pieces), bitorder="little")
        ids = np.flatnonzero(bits)
        if not len(ids):
            raise Stuck("the mask is empty")
        if rng.random() < self.by_byte:
            first = self.first[ids]
            ids = ids[first == rng.choice(np.flatnonzero(np.bincount(first)))]
        return int(ids[rng.randrange(len(ids))])


def generate(
    grammar: CompiledGrammar, picker: Picker, rng: random.Random, tokens: int, output: bytearray
) -> bool:
    """Append one output to `output`; True if it ended by itself within `tokens` tokens.

    Raises:
        Stuck: the mask is empty, or what it or the completion says is not accepted.
        ConstraintError: from the matcher.
    """
    matcher = grammar.matcher()
    mask = np.zeros((1, (len(picker.pieces) + 31) // 32), np.int32)
    for _ in range(tokens):
        matcher.fill_mask(mask, 0)
        token = picker.pick(mask[0], rng)
        if not matcher.accept_token(token):
            raise Stuck(f"token {token}, {picker.pieces[token]!r}, is in the mask but not accepted")
        if matcher.is_terminated:
            return True
        output += picker.pieces[token] or b""
    rest = matcher.shortest_completion()
    if not (matcher.accept_bytes(rest) and matcher.is_complete):
        raise Stuck(f"the completion {rest!r} is not accepted, or does not complete")
    output += rest
    return False


class Checker:
    """Says what is wrong with an output under one schema.

    Args:
        text: the schema as JSON.
        compiler: what enforces it, to ask which formats it knows.
    """

    def __init__(self, text: str, compiler: GrammarCompiler) -> None:
        schema = json.loads(text, parse_float=Decimal)
        kind: Any = validators.validator_for(schema, default=Draft202012Validator)
        whole: Any = int if kind in (Draft3Validator, Draft4Validator) else (int, Decimal)

        def is_integer(_: Any, value: Any) -> bool:
            return isinstance(value, whole) and not isinstance(value, bool) and value == value // 1

        types = kind.TYPE_CHECKER.redefine("integer", is_integer)
        formats = type(kind.FORMAT_CHECKER)(formats=())
        formats.checkers = {
            name: check
            for name, check in Draft202012Validator.FORMAT_CHECKER.checkers.items()
            if name in text and is_enforced(name, compiler)
        }
        self.validator = validators.extend(kind, type_checker=types)(
            schema, format_checker=formats, registry=REGISTRY
        )

    def problem(self, output: bytes) -> tuple[str, str] | None:
        """The kind of problem and its details, or None."""
        try:
            value = json.loads(
                output.decode(), parse_float=Decimal, parse_constant=_refuse, object_pairs_hook=_object
            )
            json.dumps(value, ensure_ascii=False, default=str).encode()
            self.validator.validate(value)
        except UnicodeDecodeError as error:
            return "not UTF-8", str(error)
        except UnicodeEncodeError as error:
            return "lone surrogate", str(error)
        except _RepeatedName as error:
            return "repeated name", str(error)
        except ValidationError as error:
            return "not valid", f"{error.json_path}: {error.message}"[:300]
        except json.JSONDecodeError as error:
            return "not JSON", str(error)
        except Overtime:
            raise
        except Exception as error:  # a pattern that is not Python's, a reference that leads nowhere, ...
            return "not checked", f"{type(error).__name__}: {error}"[:300]
        return None


class _RepeatedName(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = Counter(name for name, _ in pairs)
    if len(names) < len(pairs):
        raise _RepeatedName(repr(names.most_common(1)[0]))
    return dict(pairs)


def _refuse(text: str) -> None:
    raise json.JSONDecodeError("not a JSON number", text, 0)


@cache
def is_enforced(name: str, compiler: GrammarCompiler) -> bool:
    """Whether the engine holds strings to this format."""
    try:
        matcher = compiler.compile_json_schema({"type": "string", "format": name}).matcher()
    except ConstraintError:
        return False
    return not matcher.accept_bytes(json.dumps(NO_FORMAT).encode())


@dataclass
class Tally:
    """What happened, and the problems in full."""

    counts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    problems: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, kind: str, name: str, number: int, detail: str, output: bytes | bytearray = b"") -> None:
        """Count a problem."""
        self.counts[kind] += 1
        problem = {
            "kind": kind,
            "schema": name,
            "number": number,
            "detail": detail,
            "output": output.decode(errors="replace"),
        }
        self.problems.append(problem)

    def show(self, most: int) -> None:
        """Print everything."""
        print(f"refused schemas, {self.refused.total()}: {dict(self.refused.most_common())}")
        shown: Counter[str] = Counter()
        for problem in self.problems:
            shown[problem["kind"]] += 1
            if shown[problem["kind"]] <= most:
                print(json.dumps(problem, ensure_ascii=False))
        for kind, count in shown.items():
            if count > most:
                print(f"... and {count - most} more: {kind}")
        print(json.dumps({**self.counts, "refused": self.refused.total(), "seconds": round(self.seconds, 1)}))


class Run:
    """All generations of this process."""

    def __init__(self, options: argparse.Namespace) -> None:
        sys.path.insert(0, str(options.bench))
        sys.path += options.site
        from tekken_vocab import Vocab  # the races' vocabulary

        vocab = Vocab()
        pieces = [vocab.token_bytes(i) or None for i in range(vocab.size)]
        vocabulary = Vocabulary(pieces, [vocab.eos])
        self.options = options
        self.compiler = GrammarCompiler(vocabulary)
        self.picker = Picker(vocabulary, options.by_byte)
        self.styles = [json.loads(style) for style in options.style or STYLES]
        self.tally = Tally()
        self.begun = perf_counter()

    def schemas(self) -> dict[str, Any]:
        """The schemas of this process that compile in every style, by name."""
        shard, shards = map(int, self.options.shard.split("/"))
        listed = (self.options.bench / self.options.list).read_text("utf-8").split()[shard::shards]
        found = {}
        for name in self.options.only or listed:
            case = json.loads((self.options.bench / "cases" / name).read_text("utf-8"))
            if "schema" in case and self.compiles(name, case["schema"]):
                found[name] = case["schema"]
        return found

    def compiles(self, name: str, schema: Any) -> bool:
        """Whether it compiles; if not, count why."""
        try:
            with time_limit(self.options.each):
                for style in self.styles:
                    self.compiler.compile_json_schema(schema, **style)
        except UnsupportedSchemaError as error:
            self.tally.refused[error.keyword] += 1
        except (ConstraintError, Overtime) as error:
            self.tally.refused[type(error).__name__] += 1
        except Exception as error:
            self.tally.add("crash", name, -1, f"{type(error).__name__}: {error}"[:300])
        else:
            return True
        return False

    def all(self) -> None:
        """Every generation, or as many as the time allows; no schema takes the time of those after it."""
        schemas = self.schemas()
        names = sorted(schemas)
        random.Random(self.options.seed).shuffle(names)
        shards = int(self.options.shard.split("/")[1])
        wanted = self.options.generations // shards
        self.tally.counts["schemas"] = len(names)
        for i, name in enumerate(names):
            numbers = range(i, wanted, len(names))
            if self.options.number is not None:
                numbers = range(self.options.number, self.options.number + 1)
            left = self.options.seconds - (perf_counter() - self.begun)
            end = perf_counter() + left / (len(names) - i)
            self.of_schema(name, schemas[name], numbers, end)
            if i % 50 == 49:
                print(f"{i + 1} schemas, {dict(self.tally.counts)}", file=sys.stderr, flush=True)

    def of_schema(self, name: str, schema: Any, numbers: range, end: float) -> None:
        """Some generations under one schema."""
        checker = Checker(json.dumps(schema), self.compiler)
        for k, number in enumerate(numbers):
            if perf_counter() > end:
                self.tally.counts["no time"] += len(numbers) - k
                return
            output = bytearray()
            try:
                with time_limit(self.options.each):
                    self.one(name, schema, number, output, checker)
            except ConstraintTooComplex as error:
                self.tally.add("over a limit", name, number, str(error), output)
            except (ConstraintError, Stuck) as error:
                self.tally.add("dead end", name, number, str(error), output)
            except Overtime as error:
                self.tally.add("overtime", name, number, str(error), output)
            except Exception as error:
                self.tally.add("crash", name, number, f"{type(error).__name__}: {error}"[:300], output)

    def one(self, name: str, schema: Any, number: int, output: bytearray, checker: Checker) -> None:
        """One generation and its check."""
        rng = random.Random(f"{self.options.seed} {name} {number}")
        style = rng.choice(self.styles)
        tokens = rng.choice((self.options.max_tokens, rng.randint(0, self.options.max_tokens)))
        grammar = self.compiler.compile_json_schema(schema, **style)
        ended = generate(grammar, self.picker, rng, tokens, output)
        self.tally.counts["generated"] += 1
        self.tally.counts["ended by itself" if ended else "ended by completion"] += 1
        problem = checker.problem(bytes(output))
        if problem:
            self.tally.add(problem[0], name, number, problem[1], output)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--bench", type=Path, default=Path("../shared/bench/constraints"), help="the races' folder"
    )
    parser.add_argument(
        "--site", action="append", default=[], help="site-packages that has mistral_common, put last"
    )
    parser.add_argument("--list", default="dev.txt", help="file with names of cases, in the races' folder")
    parser.add_argument("--only", action="append", help="this case alone; may be repeated")
    parser.add_argument("--number", type=int, help="this generation alone, of each schema")
    parser.add_argument("--generations", type=int, default=10_000)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--by-byte", type=float, default=0.5, help="how often to choose the first byte first")
    parser.add_argument(
        "--style", action="append", help=f"options of compile_json_schema as JSON (default: {STYLES})"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--shard", default="0/1", help="i/n: every n-th schema from the i-th, an n-th of generations"
    )
    parser.add_argument("--seconds", type=float, default=1e9, help="time for everything")
    parser.add_argument(
        "--each", type=float, default=20, help="seconds for one generation, or for compiling a schema"
    )
    parser.add_argument("--show", type=int, default=20, help="problems of a kind to print")
    options = parser.parse_args()
    options.bench = options.bench.resolve()
    getcontext().prec = 2_000
    sys.set_int_max_str_digits(0)
    sys.setrecursionlimit(10_000)
    run = Run(options)
    try:
        run.all()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    run.tally.seconds = perf_counter() - run.begun
    run.tally.show(options.show)
    return int(any(run.tally.counts[kind] for kind in BAD))


if __name__ == "__main__":
    sys.exit(main())
