"""Memory of a constraint engine that serves many schemas, one after the other.

    export SGL_LIKE_ADAPTER=examples/bench/constraint_adapter.py
    python examples/bench/constraint_memory.py --bench ../shared/bench/constraints --engine sgl_like
    python examples/bench/constraint_memory.py --bench ../shared/bench/constraints --engine llguidance

Runs one engine of the races (engines.ENGINES there) in the races' environment. The schemas are those of all the case
files, each once; where they are fewer than `--schemas`, they come again with every declared property renamed, in the
instances too. Each is compiled, each of its valid instances is walked token by token (mask, accept), and then let go:
what is kept is what the engine keeps for itself. Refusals are counted and skipped.

Prints the resident memory (VmRSS, MB, after a collection of garbage): before anything, with the vocabulary, with the
engine, and after every `--every` schemas; at the end the peak (VmHWM).
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

_ONE = (
    *(
        "items",
        "additionalItems",
        "additionalProperties",
        "contains",
        "propertyNames",
        "not",
        "if",
        "then",
        "else",
    ),
    *("unevaluatedItems", "unevaluatedProperties"),
)
_LIST = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_MAP = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
_NAMES = ("required", "dependentRequired", "dependencies")


class Overtime(Exception):
    """One schema took longer than it may."""


def memory(name: str) -> float:
    """MB of a field of /proc/self/status: ``VmRSS`` or ``VmHWM``."""
    gc.collect()
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines())
    return int(fields[name].split()[0]) / 1024


def subschemas(schema: Any) -> Iterator[Any]:
    """The schemas directly within one."""
    if isinstance(schema, dict):
        yield from (schema[key] for key in _ONE if key in schema)
        yield from (item for key in _LIST if isinstance(schema.get(key), list) for item in schema[key])
        yield from (
            item for key in _MAP if isinstance(schema.get(key), dict) for item in schema[key].values()
        )


def declared(schema: Any) -> set[str]:
    """Names of the properties that a schema declares anywhere."""
    found = set(schema["properties"]) if isinstance(schema, dict) and "properties" in schema else set()
    return found.union(*map(declared, subschemas(schema)))


def rename(value: Any, names: dict[str, str]) -> Any:
    """An instance, or a part of a schema that holds only names, with the names changed."""
    if isinstance(value, dict):
        return {names.get(name, name): rename(item, names) for name, item in value.items()}
    return [rename(item, names) for item in value] if isinstance(value, list) else value


def rename_schema(schema: Any, names: dict[str, str]) -> Any:
    """A schema with its properties renamed; values of ``enum`` and ``const`` stay as they are."""
    if isinstance(schema, list):
        return [rename_schema(item, names) for item in schema]
    if not isinstance(schema, dict):
        return schema
    renamed: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _MAP and isinstance(value, dict):
            change = names if key in ("properties", "dependencies", "dependentSchemas") else {}
            renamed[key] = {
                change.get(name, name): rename_schema(item, names) for name, item in value.items()
            }
        elif key in _ONE or key in _LIST:
            renamed[key] = rename_schema(value, names)
        elif key == "$ref" and isinstance(value, str):
            steps = value.split("/")  # #/properties/NAME: the name after "properties" is one of ours
            pairs = zip(["", *steps], steps, strict=False)
            renamed[key] = "/".join(names.get(x, x) if before == "properties" else x for before, x in pairs)
        else:
            renamed[key] = value
        if key in _NAMES:
            renamed[key] = rename_names(renamed[key], names)
    return renamed


def rename_names(value: Any, names: dict[str, str]) -> Any:
    """``required`` and its kin: lists of names, perhaps by name."""
    if isinstance(value, dict):
        return {
            names.get(name, name): rename_names(item, names) if isinstance(item, list) else item
            for name, item in value.items()
        }
    return [names.get(name, name) for name in value] if isinstance(value, list) else value


def cases(folder: Path, wanted: int) -> Iterator[tuple[Any, list[Any]]]:
    """Distinct schemas, each with its valid instances: those of the folder, then renamed copies of them."""
    known: dict[str, tuple[Any, list[Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        case = json.loads(path.read_text("utf-8"))
        if "schema" in case:
            instances = [test["data"] for test in case["tests"] if test["valid"]]
            known.setdefault(json.dumps(case["schema"]), (case["schema"], instances))
    originals, made, copy = list(known.values()), 0, 0
    while made < wanted:
        before = made
        for schema, instances in originals:
            names = {name: f"{name}_{copy}" for name in declared(schema)} if copy else {}
            if made < wanted and (names or not copy):
                made += 1
                yield (
                    (rename_schema(schema, names), rename(instances, names)) if copy else (schema, instances)
                )
        copy += 1
        if made == before:
            return


def walk(engine: Any, compiled: Any, instances: list[Any], counts: Counter[str]) -> None:
    """Mask and accept every token of the instances."""
    for instance in instances:
        matcher = engine.start(compiled)
        counts["instances"] += 1
        for token in engine.vocab.encode(engine.dump(instance)):
            matcher.fill_mask()
            if not matcher.accept(token):
                counts["instances rejected"] += 1
                break
            counts["tokens"] += 1


def _stop(*_: Any) -> None:
    raise Overtime


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--bench", type=Path, default=Path("../shared/bench/constraints"), help="the races' folder"
    )
    parser.add_argument(
        "--site", action="append", default=[], help="site-packages with mistral_common, tiktoken: put last"
    )
    parser.add_argument("--engine", default="sgl_like")
    parser.add_argument("--schemas", type=int, default=2_000)
    parser.add_argument("--every", type=int, default=200)
    parser.add_argument(
        "--each", type=float, default=10, help="seconds for one schema, where the engine lets Python in"
    )
    parser.add_argument("--seconds", type=float, default=1e9, help="time for everything")
    options = parser.parse_args()
    begun, counts = perf_counter(), Counter[str]()

    def row(label: str) -> None:
        done = ", ".join(f"{count} {name}" for name, count in counts.items())
        print(f"| {label} | {memory('VmRSS'):.0f} | {perf_counter() - begun:.0f} | {done} |", flush=True)

    print(f"| {options.engine} | VmRSS, MB | s | so far |\n|---|---:|---:|---|")
    row("Python")
    sys.path.insert(0, str(options.bench.resolve()))
    sys.path += options.site
    from tekken_vocab import Vocab

    vocab = Vocab()
    vocab.encode("")
    row("and the vocabulary of the races")
    from engines import ENGINES

    engine = ENGINES[options.engine](vocab)
    row("and the engine with its vocabulary")
    signal.signal(signal.SIGALRM, _stop)
    for n, (schema, instances) in enumerate(cases(options.bench / "cases", options.schemas), 1):
        signal.setitimer(signal.ITIMER_REAL, options.each)
        try:
            compiled = engine.compile(schema)
            counts["compiled"] += 1
            walk(engine, compiled, instances, counts)
        except Exception as error:
            counts["overtime" if isinstance(error, Overtime) else "refused or failed"] += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        compiled = None
        if n % options.every == 0:
            row(f"{n} schemas")
        if perf_counter() - begun > options.seconds:
            break
    row(f"{n} schemas, the end")
    print(f"| peak | {memory('VmHWM'):.0f} | | |")


if __name__ == "__main__":
    main()
