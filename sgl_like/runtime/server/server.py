"""What all calls of a server share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sgl_like.errors import EngineUnavailable
from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.engine.client import EngineClient
from sgl_like.runtime.server.engine.wire import EngineInfo
from sgl_like.runtime.server.http.admission import Admission
from sgl_like.runtime.server.http.auth import Auth, read_keys
from sgl_like.runtime.server.http.bodies import Bodies
from sgl_like.runtime.server.observe.exposition import EngineReader
from sgl_like.runtime.server.observe.observer import Observer
from sgl_like.runtime.server.observe.tracing import find_tracing
from sgl_like.runtime.server.openai.logprobs import TokenTexts
from sgl_like.runtime.server.openai.responses.store import ResponseStore
from sgl_like.runtime.tokenizer.conversation import ConversationEncoder
from sgl_like.runtime.tokenizer.guard import RenderLimits
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer


@dataclass
class Server:
    """The front process.

    Args:
        config: its options.
        engine: runs requests.

    Raises:
        ConfigError: the API keys cannot be used.
    """

    config: ServerConfig
    engine: EngineClient
    created: int = field(default_factory=lambda: int(time.time()))
    draining: bool = False
    observer: Observer = field(init=False)
    auth: Auth = field(init=False)
    admission: Admission = field(init=False)
    bodies: Bodies = field(init=False)
    responses: ResponseStore = field(init=False)

    def __post_init__(self) -> None:
        keys = read_keys(self.config)
        self.observer = Observer(find_tracing(self.config.model_name))
        self.auth = Auth(self.config, keys)
        self.admission = Admission(self.config.limits, {key.name: key.quota for key in keys})
        self.bodies = Bodies(self.config.limits, self.config.strict)
        self.responses = ResponseStore(self.config.limits.stored_bytes)

    @property
    def info(self) -> EngineInfo:
        """About the engine.

        Raises:
            EngineUnavailable: none has been ready yet.
        """
        info = self.engine.info
        if info is None:
            raise EngineUnavailable("the model is being loaded")
        return info

    @cached_property
    def reader(self) -> EngineReader:
        """The engine's numbers."""
        return EngineReader(self)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's; the front process has one of its own.

        Raises:
            EngineUnavailable: see `info`.
        """
        info = self.info
        return Tokenizer(Path(info.model_path), info.vocab_size, self.config.engine.get("chat_template"))

    @cached_property
    def token_texts(self) -> TokenTexts:
        """Texts of single tokens.

        Raises:
            EngineUnavailable: see `info`.
        """
        return TokenTexts(self.tokenizer)

    @cached_property
    def conversations(self) -> ConversationEncoder:
        """Makes prompts of conversations.

        Raises:
            EngineUnavailable: see `info`.
        """
        limits = self.config.limits
        return ConversationEncoder(
            self.tokenizer, RenderLimits(limits.template_seconds, limits.template_bytes)
        )
