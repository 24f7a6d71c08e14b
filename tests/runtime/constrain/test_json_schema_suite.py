"""The official JSON-Schema-Test-Suite (c#17) as a ratchet: its groups may get better, never worse.

`json_schema_suite.json` beside this file holds what became of each group of tests: `"refused"` (the compiler said
no, which is honest), or counts `[right, wrongly rejected, wrongly accepted]`. Accepting what is invalid is worst,
then comes the number of right answers. See where things stand, or keep an improvement, with

    python -m tests.runtime.constrain.test_json_schema_suite             # counts by file, refusals by reason
    python -m tests.runtime.constrain.test_json_schema_suite --update

An instance is accepted if its text as ``json.dumps`` writes it, token by token, is allowed by every mask and may end
there. A schema that no value is valid under is an error when it is compiled, which here counts as rejecting all. Groups
that say that a format is but an annotation count against us: formats are always enforced.
"""

from __future__ import annotations

import itertools
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.base import Matcher
from sgl_like.runtime.constrain.compiler import GrammarCompiler
from sgl_like.runtime.constrain.vocabulary import Vocabulary

SUITE = Path(__file__).parents[4] / "shared" / "bench" / "constraints" / "json-schema-test-suite" / "tests"
STORED = Path(__file__).with_name("json_schema_suite.json")
META = {
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
    "draft7": "http://json-schema.org/draft-07/schema#",
}
DRAFTS = list(META)
OPTIONS: dict[str, Any] = {"property_order": "any", "whitespace": "any"}
END = 256

needs_suite = pytest.mark.skipif(not SUITE.is_dir(), reason=f"the JSON-Schema-Test-Suite is not at {SUITE}")


class Verdict(NamedTuple):
    """What became of one group of tests."""

    right: int = 0
    wrongly_rejected: int = 0
    wrongly_accepted: int = 0
    refusal: str = ""  # the reason, if the compiler refused; the counts are 0 then

    def worth(self) -> tuple[int, int, int]:
        """Larger is better."""
        return -self.wrongly_accepted, self.right, -self.wrongly_rejected

    def stored(self) -> str | list[int]:
        """As `STORED` has it; a reason may be worded anew without being worse, so it is not kept."""
        return "refused" if self.refusal else [self.right, self.wrongly_rejected, self.wrongly_accepted]


def load(stored: str | list[int]) -> Verdict:
    return Verdict(refusal="refused") if isinstance(stored, str) else Verdict(*stored)


def groups(draft: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every required group of a draft, named by file, place and description."""
    for path in sorted((SUITE / draft).glob("*.json")):
        for i, group in enumerate(json.loads(path.read_text("utf-8"))):
            yield f"{path.stem} {i}: {group['description']}", group


def accepts(matcher: Matcher, text: str) -> bool:
    """Whether each byte of `text` is allowed by the mask before it, and the output may end after the last."""
    mask = np.zeros((1, (END + 32) // 32), np.int32)
    for token in text.encode():
        matcher.fill_mask(mask, 0)
        is_allowed = bool(mask[0, token >> 5] >> (token & 31) & 1)
        assert matcher.accept_token(token) == is_allowed, "mask and accept_token disagree"
        if not is_allowed:
            return False
    matcher.fill_mask(mask, 0)
    may_end = bool(mask[0, END >> 5] >> (END & 31) & 1)
    assert matcher.is_complete == may_end, "mask and is_complete disagree"
    return may_end


def judge(compiler: GrammarCompiler, group: dict[str, Any], draft: str) -> Verdict:
    schema = group["schema"]
    if isinstance(schema, dict):
        schema = {"$schema": META[draft], **schema}
    counts: Counter[tuple[bool, bool]] = Counter()
    try:
        grammar = compiler.compile_json_schema(schema, **OPTIONS)
        for test in group["tests"]:
            text = json.dumps(test["data"], ensure_ascii=False)
            counts[test["valid"], accepts(grammar.matcher(), text)] += 1
    except ConstraintError as error:
        if "allows no output" not in str(error):
            return Verdict(refusal=str(error))
        counts = Counter((test["valid"], False) for test in group["tests"])
    return Verdict(counts[True, True] + counts[False, False], counts[True, False], counts[False, True])


def run(draft: str) -> dict[str, Verdict]:
    """The verdict on every group; the vocabulary is the 256 bytes and an end."""
    compiler = GrammarCompiler(Vocabulary([*(bytes([b]) for b in range(256)), None], [END]))
    return {name: judge(compiler, group, draft) for name, group in groups(draft)}


def read_stored() -> dict[str, dict[str, str | list[int]]]:
    found: dict[str, dict[str, str | list[int]]] = json.loads(STORED.read_text("utf-8"))
    return found


@needs_suite
@pytest.mark.parametrize("draft", DRAFTS)
def test_no_group_is_worse_than_stored(draft: str) -> None:
    stored = {name: load(entry) for name, entry in read_stored()[draft].items()}
    found = run(draft)
    assert list(found) == list(stored), "the suite has other groups than the stored file"
    worse = [
        f"{name}: {stored[name].stored()} -> {verdict.stored()} {verdict.refusal}"
        for name, verdict in found.items()
        if verdict.worth() < stored[name].worth()
    ]
    wrong = [name for name, verdict in found.items() if verdict.wrongly_accepted]
    assert not wrong, f"something invalid is accepted in these groups of {draft}: {wrong}"
    assert not worse, f"{len(worse)} groups of {draft} are worse than stored:\n" + "\n".join(worse)
    better = [name for name, verdict in found.items() if verdict.worth() > stored[name].worth()]
    if better:
        with warnings.catch_warnings():
            warnings.simplefilter("always")  # it is good news, not an error
            warnings.warn(
                f"{len(better)} groups of {draft} are better than stored ({'; '.join(better[:3])}; ...): keep it"
                " with python -m tests.runtime.constrain.test_json_schema_suite --update",
                stacklevel=1,
            )


def test_nothing_invalid_is_accepted_in_the_stored_verdicts() -> None:
    wrong = {
        f"{draft} {name}"
        for draft, entries in read_stored().items()
        for name, entry in entries.items()
        if load(entry).wrongly_accepted
    }
    assert not wrong


def test_worth_orders_verdicts() -> None:
    ordered = [Verdict(9, 0, 1), Verdict(refusal="no"), Verdict(1, 3, 0), Verdict(1, 2, 0), Verdict(4, 0, 0)]
    assert [a.worth() < b.worth() for a, b in itertools.pairwise(ordered)] == [True] * 4


def summary(draft: str, found: dict[str, Verdict]) -> str:
    """Counts of tests by file, and refusals by reason."""
    sizes = {name: len(group["tests"]) for name, group in groups(draft)}
    lines: dict[str, Counter[str]] = {}
    refusals: Counter[str] = Counter()
    for name, verdict in found.items():
        counts = {
            "tests": sizes[name],
            "right": verdict.right,
            "wrongly rejected": verdict.wrongly_rejected,
            "wrongly accepted": verdict.wrongly_accepted,
            "refused": sizes[name] if verdict.refusal else 0,
        }
        for line in (name.split(" ")[0], "all"):
            lines.setdefault(line, Counter()).update(counts)
        if verdict.refusal:
            refusals[verdict.refusal] += sizes[name]
    lines["all"] = lines.pop("all")
    header = ["tests", "right", "wrongly rejected", "wrongly accepted", "refused"]
    rows = [[draft, *header], ["---"] * 6, *([n, *(str(c[h]) for h in header)] for n, c in lines.items())]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return table + "\n\n" + "\n".join(f"{n:5} tests refused: {why}" for why, n in refusals.most_common())


def main(arguments: list[str]) -> None:
    found = {draft: run(draft) for draft in DRAFTS}
    if arguments == ["--update"]:
        kept = {d: {name: verdict.stored() for name, verdict in found[d].items()} for d in DRAFTS}
        blocks = (
            f" {json.dumps(draft)}: {{\n"
            + ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
            + "\n }"
            for draft, entries in kept.items()
        )
        STORED.write_text("{\n" + ",\n".join(blocks) + "\n}\n", "utf-8")
    for draft in DRAFTS:
        print(summary(draft, found[draft]), end="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
