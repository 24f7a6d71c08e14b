"""Which tokens are already decided: forced bytes, tokenised, minus what the next bytes could still change.

Forced bytes are not yet forced tokens. After ``{"order`` a tokenizer that has ``orderId`` would not have cut
there, and a model that is made to read unusual tokens writes worse. So the last tokens are given back as long as

* some token starts where one of them starts, agrees with the forced bytes and goes on into bytes that the grammar
  allows (``":`` when ``":"`` exists and a string may follow), or
* tokenising the forced bytes with an allowed continuation gives other tokens (rules that look ahead, like the
  blanks of GPT-2's pre-tokenizer).
"""

from __future__ import annotations

from sgl_like.runtime.constrain.automaton import Automaton, State

__all__ = ["forced_tokens"]

_PROBE_FIRST = (
    b"aA0 \n\xc3\xea\xf0!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"  # first bytes of continuations that are tried
)
_PROBE_BYTES = 24  # length of each
_REMEMBERED = 64  # previous tokens for which a state keeps its answer


def forced_tokens(automaton: Automaton, state: State, previous: int | None) -> list[int]:
    """The tokens that must come next, whatever follows them.

    Args:
        automaton: the grammar.
        state: where it is.
        previous: the token accepted last, if any: the forced bytes are tokenised together with it where the
            tokenizer itself would cut between them.

    Raises:
        ConstraintTooComplex: a limit was reached.
    """
    key = -1 if previous is None else previous
    found = state.forced_tokens.get(key)
    if found is None:
        found = tuple(_decide(automaton, state, previous))
        if len(state.forced_tokens) < _REMEMBERED:
            state.forced_tokens[key] = found
    return list(found)


def _decide(automaton: Automaton, state: State, previous: int | None) -> list[int]:
    forced = automaton.forced(state)
    if not forced or automaton.vocabulary.tokenize is None:
        return []
    before = b"" if previous is None else automaton.vocabulary.token_bytes[previous] or b""
    tokens = _continue(automaton, before, previous, forced)
    after = automaton.read(state, forced)
    assert after is not None
    tokens = tokens[: _undecided(automaton, tokens, forced, after)]
    for probe in _probes(automaton, after) if tokens else ():
        other = _continue(automaton, before, previous, forced + probe)
        differing = (i for i, (a, b) in enumerate(zip(tokens, other, strict=False)) if a != b)
        tokens = tokens[: next(differing, min(len(tokens), len(other)))]
    return tokens


def _continue(automaton: Automaton, before: bytes, previous: int | None, data: bytes) -> list[int]:
    """Tokens of `data`, after the token `previous`; those of an unfinished last character left out."""
    joint = _tokens(automaton, before + data)
    if joint and joint[0] == previous:
        return joint[1:]
    return _tokens(automaton, data)


def _tokens(automaton: Automaton, data: bytes) -> list[int]:
    """Tokens of the longest prefix of `data` that is text, as far as they spell it byte by byte."""
    vocabulary = automaton.vocabulary
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


def _undecided(automaton: Automaton, tokens: list[int], forced: bytes, after: State) -> int:
    """How many of `tokens` cannot be replaced by a token that reaches over the end of the forced bytes."""
    vocabulary = automaton.vocabulary
    lengths = [len(vocabulary.token_bytes[token] or b"") for token in tokens]
    keep, start = len(tokens), sum(lengths)
    for i in range(len(tokens) - 1, -1, -1):
        start -= lengths[i]
        rest = forced[start:]
        if len(rest) >= vocabulary.trie.longest:
            break
        if _reaches_over(automaton, rest, after):
            keep = i
    return keep


def _reaches_over(automaton: Automaton, forced: bytes, after: State) -> bool:
    """Whether some token begins with `forced` and goes on into bytes that `after` allows."""
    trie = automaton.vocabulary.trie
    top = automaton.vocabulary.trie_node(forced)
    if top < 0:
        return False
    stop, base = int(trie.end[top]), int(trie.depth[top]) + 1
    states, node = [after], top + 1
    while node < stop:
        depth = int(trie.depth[node]) - base
        state = automaton.read(states[depth], trie.byte[node : node + 1].tobytes())
        if state is None:
            node = int(trie.end[node])
            continue
        if trie.first[node + 1] > trie.first[node]:
            return True
        states[depth + 1 :] = [state]
        node += 1
    return False


def _probes(automaton: Automaton, after: State) -> list[bytes]:
    """Continuations that begin with each kind of byte that pre-tokenizers tell apart."""
    probes: list[bytes] = []
    for byte in automaton.next_bytes(after, _PROBE_FIRST):
        state = automaton.read(after, bytes([byte]))
        if state is not None:
            probe = bytes([byte]) + automaton.completion(state)[:_PROBE_BYTES]
            probes.append(probe.decode("utf-8", "ignore").encode())
    return probes
