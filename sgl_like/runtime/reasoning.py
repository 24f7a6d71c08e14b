"""Reasoning models: telling what a model thought from what it answers, while the text arrives.

    output       <think>  Let me see.  </think>  4
    reasoning             Let me see.
    answer                                      4

Only the beginning of an output is looked at: a tag in the middle of an answer is text like any other. Some chat
templates open the reasoning themselves, at the end of the prompt; then the output begins inside it. Blanks at the
borders belong to neither part. What may become a tag is held back, so the pieces of a part join to exactly that part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sgl_like.errors import RequestError

__all__ = ["REASONING_MODELS", "Part", "Splitter", "Tags", "make_splitter"]


class Tags(NamedTuple):
    """What is around a family's reasoning; `assumed`: outputs begin inside it, whatever the prompt ends with."""

    begin: str
    end: str
    assumed: bool = False


_THINK = Tags("<think>", "</think>")
_ASSUMED = Tags("<think>", "</think>", assumed=True)
_CHANNELS = None  # not between tags: every part of a message has a header that names it

REASONING_MODELS: Mapping[str, Tags | None] = {
    "deepseek-r1": _ASSUMED,
    "deepseek-v3": _THINK,
    "ernie45": _THINK,
    "glm45": _THINK,
    "gpt-oss": _CHANNELS,
    "interns1": _THINK,
    "kimi": Tags("◁think▷", "◁/think▷"),
    "kimi_k2": _THINK,
    "magistral": Tags("[THINK]", "[/THINK]"),
    "minimax": _THINK,
    "nemotron_3": _THINK,
    "qwen3": _THINK,
    "qwen3-thinking": _ASSUMED,
    "seed-oss": Tags("<seed:think>", "</seed:think>"),
    "step3": _ASSUMED,
}
"""Families by SGLang's ``model_type``, and what is around their reasoning."""


MOST_BLANKS = 256
"""That are held back until it is known whether they are at a border; more of them are text."""


class Part(NamedTuple):
    """Some text of the output, without its markup."""

    text: str
    is_reasoning: bool


class Splitter(ABC):
    """Takes one output in pieces."""

    needs_special_tokens = (
        False  # whether its markup is special tokens, which are left out of texts by default
    )

    def __init__(self, opened: Tags | None = None) -> None:
        self.opened = opened  # by the end of the prompt
        self._held = ""  # what may be markup yet

    @abstractmethod
    def _parts(self, final: bool) -> Iterator[Part]:
        """Take out of `_held` what is decided; with `final` everything."""

    def feed(self, text: str, final: bool = False) -> list[Part]:
        """The parts of what `text` adds; `final`: no more will come."""
        self._held += text
        return [part for part in self._parts(final) if part.text]


def make_splitter(model_type: str | None, prompt_end: str) -> Splitter:
    """A splitter for one output.

    Args:
        model_type: a key of `REASONING_MODELS`; ``None``: any family that has tags.
        prompt_end: the end of the prompt.

    Raises:
        RequestError: the model type is not known.
    """
    if model_type is not None and model_type not in REASONING_MODELS:
        known = ", ".join(REASONING_MODELS)
        raise RequestError(f"separate_reasoning: unknown model_type {model_type!r}; known are {known}")
    if model_type is None:
        families = [tags for tags in dict.fromkeys(REASONING_MODELS.values()) if tags and not tags.assumed]
    else:
        tags = REASONING_MODELS[model_type]
        if tags is None:
            return ChannelSplitter()
        families = [tags]
    end = prompt_end.rstrip()
    opened = next((tags for tags in families if end.endswith(tags.begin)), None)
    return TagSplitter(families, opened)


class TagSplitter(Splitter):
    """For reasoning between tags.

    Args:
        families: tags that may begin it.
        opened: those that the prompt ends with.
    """

    def __init__(self, families: list[Tags], opened: Tags | None) -> None:
        super().__init__(opened)
        self._families = families
        self._tags = opened or next((tags for tags in families if tags.assumed), None)  # around where we are
        self._begun = False  # whether it is decided if the output begins with a tag
        self._inside = self._tags is not None
        self._strip = self._inside  # leave out blanks that come next

    def _parts(self, final: bool) -> Iterator[Part]:
        if not self._begun and not self._begin(final):
            return
        if self._inside:
            yield from self._reasoning(final)
        if not self._inside:
            yield Part(self._taken(len(self._held)), is_reasoning=False)

    def _begin(self, final: bool) -> bool:
        """Find out whether the output begins with a tag; false as long as it is open."""
        text = self._held.lstrip()
        found = next((tags for tags in self._families if text.startswith(tags.begin)), None)
        if found is not None:
            self._tags, self._inside, self._strip = found, True, True
            self._held = text[len(found.begin) :]
        elif (
            not final
            and len(self._held) <= MOST_BLANKS
            and any(tags.begin.startswith(text) for tags in self._families)
        ):
            return False
        self._begun = True
        return True

    def _reasoning(self, final: bool) -> Iterator[Part]:
        assert self._tags is not None
        end = self._tags.end
        at = self._held.find(end)
        if at >= 0 or final:
            text = self._taken(at if at >= 0 else len(self._held)).rstrip()
            self._held = self._held[len(end) :]
            self._inside, self._strip = False, True
        else:
            keep = _overlap(self._held, end)
            size = len(self._held) - keep
            bare = len(self._held[:size].rstrip())
            text = self._taken(bare if size - bare <= MOST_BLANKS else size)
        yield Part(text, is_reasoning=True)

    def _taken(self, size: int) -> str:
        """Take the first `size` characters of what is held, without blanks where they are left out."""
        text, self._held = self._held[:size], self._held[size:]
        if self._strip:
            text = text.lstrip()
            self._strip = not text
        return text


class ChannelSplitter(Splitter):
    """For OpenAI's harmony format: ``<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final...``.

    The final channel is the answer; what is in others is reasoning, a line break between two of them.
    """

    needs_special_tokens = True
    _ENDS = ("<|end|>", "<|return|>", "<|call|>", "<|start|>", "<|channel|>")

    def __init__(self) -> None:
        super().__init__()
        self._channel: str | None = None  # of the part we are in; None: in a header
        self._count = 0  # parts of reasoning so far

    def _parts(self, final: bool) -> Iterator[Part]:
        while True:
            if self._channel is None:
                if not self._read_header():
                    break
                if self._channel != "final":
                    self._count += 1
                    yield Part("\n" if self._count > 1 else "", is_reasoning=True)
            ends = [(at, end) for end in self._ENDS if (at := self._held.find(end)) >= 0]
            if not ends:
                keep = 0 if final else max(_overlap(self._held, end) for end in self._ENDS)
                size = len(self._held) - keep
                yield Part(self._held[:size], self._channel != "final")
                self._held = self._held[size:]
                return
            at, end = min(ends)
            yield Part(self._held[:at], self._channel != "final")
            self._held = self._held[at + len(end) :] if end in self._ENDS[:3] else self._held[at:]
            self._channel = None
        if final and not self._count and "<|" not in self._held:  # not in this format at all
            yield Part(self._held, is_reasoning=False)

    def _read_header(self) -> bool:
        header, found, rest = self._held.partition("<|message|>")
        if not found:
            return False
        _, _, name = header.partition("<|channel|>")
        self._channel = (name.split() or ["final"])[0]
        self._held = rest
        return True


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that `mark` may go on from."""
    sizes = range(min(len(text), len(mark) - 1), 0, -1)
    return next((size for size in sizes if text.endswith(mark[:size])), 0)
