"""What each token id stands for in bytes, read from ``tokenizer.json``.

Two families cover the models of the field: byte-level BPE (GPT-2's printable alphabet stands for the 256 bytes)
and SentencePiece-like vocabularies (a lower one eighth block is the space, ``<0xE2>`` a single byte). Knowing the
bytes makes both masks and streaming exact: a token may end in the middle of a character.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sgl_like.errors import ModelLoadError

SPACE_MARK = "▁"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_alphabet() -> dict[str, int]:
    """GPT-2's mapping from a printable character to the byte that it stands for."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    table = {chr(b): b for b in printable}
    others = (b for b in range(256) if b not in set(printable))
    table.update({chr(256 + i): b for i, b in enumerate(others)})
    return table


def token_bytes(
    tokenizer_json: Mapping[str, Any], pieces: Sequence[str | None], special_ids: set[int]
) -> list[bytes | None]:
    """Bytes of every token id; ``None`` for special tokens and ids without a token.

    Args:
        tokenizer_json: the parsed ``tokenizer.json``.
        pieces: vocabulary string of each id.
        special_ids: ids of special tokens.

    Raises:
        ModelLoadError: the file's decoder is of a kind that is not known here.
    """
    convert = _converter(tokenizer_json)
    added = {t["id"] for t in tokenizer_json.get("added_tokens", ())}
    out: list[bytes | None] = []
    for token_id, piece in enumerate(pieces):
        if piece is None or token_id in special_ids:
            out.append(None)
        elif token_id in added:
            out.append(piece.encode())
        else:
            out.append(convert(piece))
    return out


def _converter(tokenizer_json: Mapping[str, Any]) -> Any:
    kinds = _decoder_kinds(tokenizer_json.get("decoder"))
    if "ByteLevel" in kinds:
        alphabet = byte_alphabet()
        return lambda piece: _from_alphabet(piece, alphabet)
    if kinds & {"Metaspace", "ByteFallback", "Replace"}:
        return _from_metaspace
    raise ModelLoadError(
        f"tokenizer.json: decoder of kind {sorted(kinds) or 'none'} is not supported; "
        "byte-level BPE and SentencePiece-style tokenizers are"
    )


def _decoder_kinds(decoder: Mapping[str, Any] | None) -> set[str]:
    if not decoder:
        return set()
    kinds = {str(decoder.get("type"))}
    for part in decoder.get("decoders", ()):
        kinds |= _decoder_kinds(part)
    return kinds


def _from_alphabet(piece: str, alphabet: Mapping[str, int]) -> bytes:
    try:
        return bytes(alphabet[char] for char in piece)
    except KeyError:  # a token added without being marked so: it stands for itself
        return piece.encode()


def _from_metaspace(piece: str) -> bytes:
    match = _BYTE_TOKEN.fullmatch(piece)
    if match:
        return bytes([int(match[1], 16)])
    return piece.replace(SPACE_MARK, " ").encode()
