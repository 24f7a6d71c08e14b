"""A model folder's tokenizer: text to ids and back, its special tokens and its chat template."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as HubTokenizer

from sgl_like.errors import ConfigError, ModelLoadError, RequestError
from sgl_like.runtime.tokenizer.chat_template import JinjaTemplate, Message
from sgl_like.runtime.tokenizer.detokenizer import Detokenizer, TextSearch, utf8_decoder
from sgl_like.runtime.tokenizer.named_templates import (
    ChatTemplate,
    chat_template_names,
    get_chat_template,
    get_chat_template_by_model_path,
)
from sgl_like.runtime.tokenizer.token_bytes import token_bytes
from sgl_like.runtime.tokenizer.tool_form import ToolForm, read_tool_form

LONG = 4096
"""Characters from which on a text is tokenised without offsets; below, that takes longer."""


class Tokenizer:
    """Reads ``tokenizer.json`` and its companions from a model folder.

    Args:
        folder: where ``tokenizer.json``, ``tokenizer_config.json`` and maybe ``generation_config.json`` and
            ``chat_template.jinja`` lie.
        vocab_size: rows of the model's embedding, if more than the tokenizer's tokens (padding).
        chat_template: instead of the folder's own: a registered name (`sgl_like.register_chat_template`), the path of
            a Jinja file, or Jinja text.

    Raises:
        ModelLoadError: a file is missing or damaged.
        ConfigError: `chat_template` is none of these.
        ChatTemplateError: it is not valid Jinja.
    """

    def __init__(
        self, folder: Path, vocab_size: int | None = None, chat_template: str | Path | None = None
    ) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelLoadError(
                f"{folder}: no tokenizer.json; convert the tokenizer to the fast format first"
            )
        try:
            self._tokenizer = HubTokenizer.from_file(str(path))
            raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises plain Exception for a damaged file
            raise ModelLoadError(f"{path}: cannot be read as a tokenizer: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._plain = HubTokenizer.from_str(self._tokenizer.to_str())  # never reads special tokens in text
        self._plain.encode_special_tokens = True
        self._config = read_json(folder / "tokenizer_config.json")
        self._folder = folder
        added = raw.get("added_tokens", ())
        self._special_text = {int(t["id"]): str(t["content"]) for t in added if t.get("special")}
        self._special_ids = {text: token for token, text in self._special_text.items()}
        size = max(vocab_size or 0, self._tokenizer.get_vocab_size(with_added_tokens=True))
        pieces = [self._tokenizer.id_to_token(i) for i in range(size)]
        self.vocab_size = size
        self.token_bytes = token_bytes(raw, pieces, set(self._special_text))
        self.eos_token_ids = self._find_eos()
        self._given_template = None if chat_template is None else self._read_template(chat_template)

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Texts of the special tokens, and their ids."""
        return self._special_ids

    def encode(self, text: str) -> list[int]:
        """Ids of a raw prompt: special tokens in it count as such, and a beginning-of-sequence token that the
        model wants is put in front unless the text has it already.
        """
        ids = _ids(self._tokenizer, text)
        start = self.start_ids
        return ids if ids[: len(start)] == start else [*start, *ids]

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a text in which nothing is a special token.

        Raises:
            RequestError: it has a lone surrogate, which no UTF-8 stands for.
        """
        try:
            ids = _ids(self._plain, text)
        except TypeError:
            at = next((i for i, char in enumerate(text) if "\ud800" <= char <= "\udfff"), None)
            if at is None:
                raise
            around = text[max(at - 20, 0) : at + 20]
            raise RequestError(f"the text has a lone surrogate, which is no character: {around!r}") from None
        return ids

    def encode_continuation(self, text: str) -> list[int]:
        """Ids of a text that comes after other text. SentencePiece's tokenizers put a blank before a text, which is
        wrong inside one: there the text is encoded after a line break, whose ids are left out again. Empty if a line
        break and the text's beginning are one token.
        """
        if not self._puts_blank_first:
            return self.encode_plain(text)
        start, ids = self.encode_plain("\n"), self.encode_plain("\n" + text)
        return ids[len(start) :] if ids[: len(start)] == start else []

    @cached_property
    def _puts_blank_first(self) -> bool:
        first = self.encode_plain("a")[:1]
        return bool(first) and (self.token_bytes[first[0]] or b"").startswith(b" ")

    def encode_segments(self, segments: Sequence[tuple[str, bool]]) -> list[int]:
        """Ids of the concatenated texts. Special tokens are recognised only in segments marked as trusted,
        and ordinary text is tokenised across segment borders, as if written in one piece.

        Args:
            segments: pairs ``(text, trusted)``.
        """
        ids: list[int] = []
        run: list[str] = []

        def close_run() -> None:
            if text := "".join(run):
                ids.extend(self.encode_plain(text))
            run.clear()

        for text, trusted in segments:
            if not trusted:
                run.append(text)
                continue
            for piece in self._split_special(text):
                if piece in self._special_ids:
                    close_run()
                    ids.append(self._special_ids[piece])
                else:
                    run.append(piece)
        close_run()
        return ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of some ids; invalid UTF-8 becomes U+FFFD."""
        detokenizer = self.detokenizer(skip_special_tokens=skip_special_tokens)
        for token in ids:
            detokenizer.push(token)
        detokenizer.finish()
        return detokenizer.text

    def pieces(self, ids: Sequence[int]) -> list[bytes | str]:
        """What each token stands for: its bytes, or the name of a special token (or of an id without a token)."""
        known = range(self.vocab_size)
        bytes_of = [self.token_bytes[token] if token in known else None for token in ids]
        return [
            self._special_text.get(token, f"<{token}>") if piece is None else piece
            for token, piece in zip(ids, bytes_of, strict=True)
        ]

    def detokenizer(
        self,
        stop: tuple[str, ...] = (),
        keep_stop: bool = False,
        skip_special_tokens: bool = True,
        search: TextSearch | None = None,
    ) -> Detokenizer:
        """A fresh incremental detokenizer over this vocabulary."""
        special = {} if skip_special_tokens else self._special_text
        return Detokenizer(self.token_bytes, special, stop, keep_stop, search, _decoder=utf8_decoder())

    @cached_property
    def longest_token(self) -> int:
        """Most bytes, and so most characters, that one token stands for."""
        special = max(map(len, self._special_ids), default=1)
        return max(special, max(len(each) for each in self.token_bytes if each is not None))

    @cached_property
    def start_ids(self) -> list[int]:
        """Ids that the tokenizer's post-processor puts in front of a text (a beginning-of-sequence token)."""
        with_special: list[int] = self._tokenizer.encode("a", add_special_tokens=True).ids
        without: list[int] = self._tokenizer.encode("a", add_special_tokens=False).ids
        for at in range(len(with_special) - len(without) + 1):
            if with_special[at : at + len(without)] == without:
                return with_special[:at]
        return []

    @cached_property
    def chat_template(self) -> JinjaTemplate | ChatTemplate:
        """The template that was asked for, or the model's own, or with a warning the one that fits its name best."""
        if self._given_template is not None:
            return self._given_template
        source = self._config.get("chat_template")
        if isinstance(source, list):  # several named ones
            named = {entry.get("name"): entry.get("template") for entry in source}
            source = named.get("default") or next(iter(named.values()), None)
        path = self._folder / "chat_template.jinja"
        if path.is_file():
            source = path.read_text(encoding="utf-8")
        if source:
            return self._jinja(source)
        found = get_chat_template_by_model_path(str(self._folder))
        shown = found.render([{"role": "user", "content": "..."}], add_generation_prompt=True)
        warnings.warn(
            f"{self._folder.name} has no chat template of its own; messages are written as {found.name!r} does it:"
            f" {shown!r}. Give chat_template=... to choose another",
            stacklevel=2,
        )
        return found

    @cached_property
    def tool_form(self) -> ToolForm | None:
        """How the model's own chat template writes calls of functions, if it does."""
        template = self.chat_template
        return read_tool_form(template.render) if isinstance(template, JinjaTemplate) else None

    @property
    def template_stops(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """What ends an assistant's message besides the end-of-sequence tokens, if a named template is in use and says
        so: strings, and tokens where such a string is a special token.
        """
        used = self._given_template or self.__dict__.get(
            "chat_template"
        )  # not looked up before a message is written
        ends = used.stop_str if isinstance(used, ChatTemplate) else ()
        texts = tuple(each for each in ends if each not in self._special_ids)
        return texts, tuple(self._special_ids[each] for each in ends if each in self._special_ids)

    def role_affixes(
        self, messages: Sequence[Message], role: str, tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[str, str]:
        """See `JinjaTemplate.role_affixes`."""
        return self.chat_template.role_affixes(messages, role, tools)

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """Ids of a whole conversation, with descriptions of `tools` where the template shows them.

        Raises:
            ChatTemplateError: the template refuses the messages.
        """
        text = self.chat_template.render(messages, add_generation_prompt, tools=tools)
        return self.encode_segments([(text, True)])

    def _read_template(self, given: str | Path) -> JinjaTemplate | ChatTemplate:
        """A template as an option names it."""
        if str(given) in chat_template_names():
            return get_chat_template(str(given))
        if "{{" in str(given) or "{%" in str(given):
            return self._jinja(str(given))
        try:
            return self._jinja(Path(given).expanduser().read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"chat_template={str(given)!r} is no Jinja text, no file that can be read ({error}), and none of the"
                f" names {', '.join(chat_template_names())}"
            ) from error

    def _jinja(self, source: str) -> JinjaTemplate:
        names = ("bos_token", "eos_token", "unk_token", "pad_token")
        return JinjaTemplate(source, {name: _content(self._config.get(name)) or "" for name in names})

    def _split_special(self, text: str) -> list[str]:
        """`text` cut into special tokens and what is between them."""
        pieces = [text]
        for special in self._special_ids:
            if special not in text:
                continue
            cut: list[str] = []
            for piece in pieces:
                if piece in self._special_ids:
                    cut.append(piece)
                    continue
                for i, part in enumerate(piece.split(special)):
                    cut += [special, part] if i else [part]
            pieces = [piece for piece in cut if piece]
        return pieces

    def _find_eos(self) -> tuple[int, ...]:
        """End-of-sequence ids: those of ``generation_config.json``, of ``config.json``, and the tokenizer's."""
        found: list[int] = []
        for name in ("generation_config.json", "config.json"):
            value = read_json(self._folder / name).get("eos_token_id")
            found += value if isinstance(value, list) else [value] if isinstance(value, int) else []
        token = self._tokenizer.token_to_id(_content(self._config.get("eos_token")) or "")
        if token is not None:
            found.append(token)
        return tuple(dict.fromkeys(t for t in found if 0 <= t < self.vocab_size))


def _ids(tokenizer: HubTokenizer, text: str) -> list[int]:
    """Ids of a text. What the library keeps beside them for each token takes two fifths of the time for long texts, and
    holds up other threads when it is freed (0.12 s for 960 kB); only its batches can be had without.
    """
    if len(text) < LONG:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)
    return list(tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty if there is no such file.

    Raises:
        ModelLoadError: it is not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path}: holds a {type(value).__name__}, not an object")
    return value


def _content(token: Any) -> str | None:
    """A special token is written as a string or as ``{"content": ...}``."""
    if isinstance(token, dict):
        return str(token.get("content", ""))
    return token if isinstance(token, str) else None
