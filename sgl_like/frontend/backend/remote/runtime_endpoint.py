"""`RuntimeEndpoint`: programs on a server that speaks SGLang's native API, SGLang's or our own.

With the model's tokenizer at hand, prompts are sent as token ids, and what was sampled comes back as ids, so that a
conversation's tokens are those that the model saw (b#31). Without it, text goes to ``/generate`` and messages to the
server's chat endpoint, which knows the model's template (b#29).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sgl_like.errors import ConfigError, RemoteRequestError, RequestError
from sgl_like.frontend.backend.base import CacheStats, Handle, Segment, Sink, ToolForm
from sgl_like.frontend.backend.remote import codec, loop
from sgl_like.frontend.backend.remote.backend import RemoteBackend
from sgl_like.frontend.backend.remote.clients import http_options
from sgl_like.frontend.backend.remote.codec import Prompt, Tokens
from sgl_like.frontend.backend.remote.dialect import merged
from sgl_like.frontend.backend.remote.engines.sglang import SGL_LIKE, SGLANG
from sgl_like.frontend.backend.remote.http import Http

if TYPE_CHECKING:
    from sgl_like.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["RuntimeEndpoint"]

_NEEDED = {"choices", "resume", "incremental_streaming_output", "bad_words"}
"""What a server has to have to be treated as ours."""
_LOCAL = ("localhost", "127.0.0.1", "::1")


class RuntimeEndpoint(RemoteBackend):
    """Programs on a server with SGLang's ``/generate``.

    Args:
        base_url: its address, e.g. ``"http://localhost:30000"``.
        api_key: sent as a bearer token. Never shown.
        verify: path of a file of certificates to trust, or whether to check the server's at all.
        chat_template_name: put messages into the registered template of that name (`get_chat_template`) instead of
            leaving that to the model's own; what ends a message there ends a gen.
        tokenizer: folder with the model's tokenizer, to send token ids; ``None``: send text; ``"auto"``: the folder
            that a server on this machine names, if it is there.
        extra_body: fields merged into every request as they are.
        **http: fields of `HttpOptions`: ``timeout``, ``connect_timeout``, ``max_retries``, ``max_connections``,
            ``headers``.

    Raises:
        ConfigError: an argument cannot be used.
        RemoteError: the server does not answer, or is not of that kind.
        ChatTemplateError: there is no template of that name.
        ModelLoadError: `tokenizer` names a folder without a usable one.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        verify: bool | str | None = None,
        chat_template_name: str | None = None,
        *,
        tokenizer: str | None = "auto",
        extra_body: Mapping[str, Any] | None = None,
        **http: Any,
    ) -> None:
        template = None
        if chat_template_name is not None:
            from sgl_like.runtime.tokenizer.named_templates import get_chat_template

            template = get_chat_template(chat_template_name)
        self._template = template
        checked = {} if verify is None else {"verify": verify}
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        options = http_options({**http, **checked}, headers)
        server = Http(base_url, (api_key or "",), options)
        try:
            info = loop.run(_first_of(server, "GET", "/get_model_info", "/model_info"))
            if not isinstance(info, dict) or "model_path" not in info:
                raise ConfigError(
                    f"{server.public_url} does not speak SGLang's API: it has no /get_model_info"
                )
            self._tokenizer = _tokenizer(tokenizer, server.base_url, info)
        except BaseException:
            loop.start_closing(server)
            raise
        self.model_info: dict[str, Any] = info
        dialect = SGL_LIKE if _NEEDED.issubset((info.get("sgl_like") or {}).get("features", ())) else SGLANG
        model = str((info.get("served_model_name") if dialect is SGL_LIKE else None) or info["model_path"])
        super().__init__(server, dialect, model, max_retries=options.max_retries, extra_body=extra_body)

    @property
    def supports_images(self) -> bool:
        """Whether messages go to the server's chat endpoint, which takes them."""
        return self._tokenizer is None and self._template is None

    @property
    def ids_are_tokens(self) -> bool:
        """Whether the tokenizer is at hand."""
        return self._tokenizer is not None

    def encode(self, segments: Sequence[Segment], *, start: bool = False) -> list[int]:
        """Token ids, or private ones; see `Backend.encode`."""
        if self._tokenizer is None:
            return codec.encode(segments)
        ids = self._tokenizer.encode_segments([(text, trusted) for text, trusted, _ in segments])
        first = self._tokenizer.start_ids if start else []
        return ids if ids[: len(first)] == first else [*first, *ids]

    def role_affixes(self, messages: Sequence[Mapping[str, Any]], role: str) -> tuple[str, str]:
        """Markup around the next message: of the model's own template, or marks for the server to replace."""
        if self._template is not None:
            return self._template.role_affixes(messages, role)
        if self._tokenizer is None:
            return codec.turn_affixes(role)
        return self._tokenizer.role_affixes(messages, role)

    def submit(
        self, prompt_ids: Sequence[int], params: Mapping[str, Any], sink: Sink, stream: bool
    ) -> Handle:
        """Send a request; see `Backend.submit`."""
        if self._template is not None and self._template.stop_str:
            given = params.get("stop") or ()
            listed = (given,) if isinstance(given, str) else tuple(given)
            params = {**params, "stop": (*listed, *self._template.stop_str)}
        return super().submit(prompt_ids, params, sink, stream)

    def token_pieces(self, ids: Sequence[int]) -> list[bytes | str] | None:
        """Bytes, or the name of a special token; ``None`` without the tokenizer."""
        return None if self._tokenizer is None else self._tokenizer.pieces(ids)

    def token_bytes(self) -> Sequence[bytes | None] | None:
        """The bytes of each token; ``None`` without the tokenizer."""
        return None if self._tokenizer is None else self._tokenizer.token_bytes

    @property
    def tool_form(self) -> ToolForm | None:
        """Read off the model's own template; ``None`` without the tokenizer, or with another template."""
        return None if self._tokenizer is None or self._template is not None else self._tokenizer.tool_form

    def cache_prefix(self, prefix: str) -> None:
        """Have the server compute a prefix. Waits until that is done.

        Raises:
            RemoteError: the server does not answer.
        """
        nothing = {"text": prefix, "sampling_params": {"max_new_tokens": 0, "temperature": 0.0}}
        loop.run(self._http.json("POST", "/generate", merged(nothing, self._extra_body)))

    def flush_cache(self) -> bool:
        """Have the server forget every cached prefix.

        Raises:
            RemoteError: the server does not answer.
        """
        try:
            loop.run(self._http.json("POST", "/flush_cache"))
        except RemoteRequestError:  # requests are running
            return False
        return True

    def cache_stats(self) -> CacheStats:
        """What the prefix cache of our own server did so far, for everybody, and holds.

        Raises:
            RequestError: the server is another one, or does not tell.
            RemoteError: it does not answer.
        """
        return (
            super().cache_stats() if self.dialect is not SGL_LIKE else CacheStats.of(self.get_server_info())
        )

    def get_server_info(self) -> dict[str, Any]:
        """What the server says about itself.

        Raises:
            RemoteError: it does not answer.
        """
        info: dict[str, Any] = loop.run(_first_of(self._http, "GET", "/server_info", "/get_server_info"))
        return info

    def _prompt(self, ids: Sequence[int]) -> Prompt:
        if self._tokenizer is not None:
            return Tokens(tuple(ids))
        if self._template is not None:
            self._refuse_markup(codec.decode(ids))
        return codec.read(ids)

    def _refuse_markup(self, segments: Sequence[Segment]) -> None:
        """The server cannot tell a template's markup from the same characters in a message."""
        assert self._template is not None
        both = self._template.role_prefix_and_suffix.values()
        marks = [mark for affixes in both for mark in map(str.strip, affixes) if mark]
        found = next((mark for s in segments if not s.trusted for mark in marks if mark in s.text), None)
        if found is not None:
            raise RequestError(
                f"the text of a message has {found!r} in it, which would be taken for the chat template's own;"
                " name the model's tokenizer, or leave chat_template_name out"
            )

    def _choice(self, ids: Sequence[int]) -> str | tuple[int, ...]:
        return super()._choice(ids) if self._tokenizer is None else tuple(ids)


async def _first_of(http: Http, method: str, *paths: str) -> Any:
    """What the first of `paths` says that the server has."""
    for path in paths[:-1]:
        try:
            return await http.json(method, path)
        except RemoteRequestError as error:
            if error.status != 404:
                raise
    return await http.json(method, paths[-1])


def _tokenizer(asked: str | None, base_url: str, info: Mapping[str, Any]) -> Tokenizer | None:
    folder = asked
    if asked == "auto":
        named = info.get("tokenizer_path") or info["model_path"]
        near = urlsplit(base_url).hostname in _LOCAL and (Path(named) / "tokenizer.json").is_file()
        folder = str(named) if near else None
    if folder is None:
        return None
    from sgl_like.runtime.tokenizer.tokenizer import Tokenizer

    return Tokenizer(Path(folder))
