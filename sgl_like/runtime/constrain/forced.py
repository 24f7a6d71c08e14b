"""Which tokens are already decided: forced bytes, tokenised, minus what the next bytes could still change.

Forced bytes are not yet forced tokens. After ``{"order`` a tokenizer that has ``orderId`` would not have cut
there, and a model that is made to read unusual tokens writes worse. So the last tokens are given back as long as

* some token starts where one of them starts, agrees with the forced bytes and goes on into bytes that the grammar
  allows (``":`` when ``":"`` exists and a string may follow), or
* tokenising the forced bytes with an allowed continuation gives other tokens (rules that look ahead, like the
  blanks of GPT-2's pre-tokenizer).
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.vocabulary import Vocabulary

__all__ = ["Follower", "Place", "forced_tokens"]

_PROBE_FIRST = (
    b"aA0 \n\xc3\xea\xf0!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"  # first bytes of continuations that are tried
)
_PROBE_BYTES = 24  # length of each
_REMEMBERED = 64  # previous tokens for which a state keeps its answer


class Place(Protocol):
    """Where an output is in its grammar. `forced_tokens`: answers by the previous token (-1: none)."""

    forced_tokens: dict[int, tuple[int, ...]]


S = TypeVar("S", bound=Place)


class Follower(Protocol[S]):
    """What has to be known of a grammar."""

    vocabulary: Vocabulary

    def forced(self, state: S) -> bytes:
        """The bytes that every continuation starts with."""

    def read(self, state: S, data: bytes) -> S | None:
        """The state after some bytes, or None if they are not allowed."""

    def next_bytes(self, state: S, wanted: bytes) -> list[int]:
        """Those of the bytes `wanted` that may come next, and one of every set of bytes that has none of them."""

    def completion(self, state: S) -> bytes:
        """A short continuation to the end of the output."""


def forced_tokens(grammar: Follower[S], state: S, previous: int | None) -> list[int]:
    """The tokens that must come next, whatever follows them.

    Args:
        grammar: what the output has to follow.
        state: where it is.
        previous: the token accepted last, if any: the forced bytes are tokenised together with it where the
            tokenizer itself would cut between them.

    Raises:
        ConstraintTooComplex: a limit was reached.
    """
    key = -1 if previous is None else previous
    found = state.forced_tokens.get(key)
    if found is None:
        found = tuple(_decide(grammar, state, previous))
        if len(state.forced_tokens) < _REMEMBERED:
            state.forced_tokens[key] = found
    return list(found)


def _decide(grammar: Follower[S], state: S, previous: int | None) -> list[int]:
    forced = grammar.forced(state)
    if not forced or grammar.vocabulary.tokenize is None:
        return []
    before = b"" if previous is None else grammar.vocabulary.token_bytes[previous] or b""
    tokens = _continue(grammar.vocabulary, before, previous, forced)
    after = grammar.read(state, forced)
    assert after is not None
    tokens = tokens[: _undecided(grammar, tokens, forced, after)]
    try:
        probes = _probes(grammar, after) if tokens else []
    except ConstraintError:  # no continuation was found within the limits: nothing can be said of the tokens
        return []
    for probe in probes:
        other = _continue(grammar.vocabulary, before, previous, forced + probe)
        differing = (i for i, (a, b) in enumerate(zip(tokens, other, strict=False)) if a != b)
        tokens = tokens[: next(differing, min(len(tokens), len(other)))]
    return tokens


def _continue(vocabulary: Vocabulary, before: bytes, previous: int | None, data: bytes) -> list[int]:
    """Tokens of `data`, after the token `previous`; those of an unfinished last character left out."""
    joint = _tokens(vocabulary, before + data)
    if joint and joint[0] == previous:
        return joint[1:]
    return _tokens(vocabulary, data)


def _tokens(vocabulary: Vocabulary, data: bytes) -> list[int]:
    """Tokens of the longest prefix of `data` that is text, as far as they spell it byte by byte."""
    assert vocabulary.tokenize is not None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.end < len(data) or error.start == 0:
            return []
        text = data[: error.start].decode("utf-8")
    tokens: list[int] = []
    at = 0
    for token in vocabulary.tokenize(text):
        piece = vocabulary.token_bytes[token] if 0 <= token < vocabulary.size else None
        if not piece or not data.startswith(piece, at):
            break
        tokens.append(token)
        at += len(piece)
    return tokens


def _undecided(grammar: Follower[S], tokens: list[int], forced: bytes, after: S) -> int:
    """How many of `tokens` cannot be replaced by a token that reaches over the end of the forced bytes."""
    vocabulary = grammar.vocabulary
    lengths = [len(vocabulary.token_bytes[token] or b"") for token in tokens]
    keep, start = len(tokens), sum(lengths)
    for i in range(len(tokens) - 1, -1, -1):
        start -= lengths[i]
        rest = forced[start:]
        if len(rest) >= vocabulary.trie.longest:
            break
        if _reaches_over(grammar, rest, after):
            keep = i
    return keep


def _reaches_over(grammar: Follower[S], forced: bytes, after: S) -> bool:
    """Whether some token begins with `forced` and goes on into bytes that `after` allows."""
    trie = grammar.vocabulary.trie
    top = grammar.vocabulary.trie_node(forced)
    if top < 0:
        return False
    stop, base = int(trie.end[top]), int(trie.depth[top]) + 1
    states, node = [after], top + 1
    while node < stop:
        depth = int(trie.depth[node]) - base
        state = grammar.read(states[depth], trie.byte[node : node + 1].tobytes())
        if state is None:
            node = int(trie.end[node])
            continue
        if trie.first[node + 1] > trie.first[node]:
            return True
        states[depth + 1 :] = [state]
        node += 1
    return False


def _probes(grammar: Follower[S], after: S) -> list[bytes]:
    """Continuations that begin with each kind of byte that pre-tokenizers tell apart."""
    probes: list[bytes] = []
    for byte in grammar.next_bytes(after, _PROBE_FIRST):
        state = grammar.read(after, bytes([byte]))
        if state is not None:
            probe = bytes([byte]) + grammar.completion(state)[:_PROBE_BYTES]
            probes.append(probe.decode("utf-8", "ignore").encode())
    return probes
