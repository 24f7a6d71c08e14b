"""``validate``: who says whether an output is accepted, how often it is tried again, and what the model is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from sgl_like.errors import SamplingParamsError
from sgl_like.frontend.outputs.adapters import is_type, problems
from sgl_like.frontend.outputs.output_types import OutputType, json_output
from sgl_like.frontend.outputs.values import GenText
from sgl_like.frontend.tools.user_code import called

__all__ = ["Check", "Refusal", "Verdict", "make_check"]

DEFAULT_RETRIES = 2
MAX_RETRIES = 100

Feedback = bool | Callable[[str, str], str]


class Refusal(NamedTuple):
    """An output that was not accepted, why, and what the model is told about it."""

    text: GenText
    reason: str
    message: str


class Verdict(NamedTuple):
    """What came of one output. It is accepted if there is neither a refusal nor a failure of the check itself."""

    text: GenText
    refusal: Refusal | None = None
    failure: Exception | None = None


@dataclass(frozen=True)
class Check:
    """What an output has to pass.

    Args:
        output_type: what it is read as, if it has a type. One that cannot be read is refused.
        function: gets the value, or the text of a gen without a type. It refuses by returning ``False`` or raising
            ValueError or AssertionError.
        max_retries: how many more attempts there may be.
        feedback: whether the model sees what was refused and why; or what makes a message of text and reason.
    """

    output_type: OutputType | None
    function: Callable[[Any], Any] | None
    max_retries: int
    feedback: Feedback

    def verdict(self, text: GenText) -> Verdict:
        """Judge an output. Runs the user's code, so not for the executor's thread; does not raise."""
        try:
            reason = self._reason_against(text)
            if reason is None:
                return Verdict(text)
            return Verdict(text, Refusal(text, reason, self._message(text, reason)))
        except Exception as failure:  # of the user's code; it becomes the state's error
            return Verdict(text, failure=failure)

    def _reason_against(self, text: GenText) -> str | None:
        try:
            value = text if self.output_type is None else called(lambda: text.parsed)
            if self.function is not None and called(self.function, value) is False:
                return "it did not pass the check"
        except (ValueError, AssertionError) as error:
            return _reason(error)
        return None

    def _message(self, text: GenText, reason: str) -> str:
        if callable(self.feedback):
            return str(called(self.feedback, text, reason))
        return f"This was not accepted: {reason}\nTry again."


def make_check(
    output_type: OutputType | None, validate: Any, max_retries: int | None, feedback: Any
) -> Check | None:
    """The check of a gen; ``None`` if it has none.

    Raises:
        SamplingParamsError: an argument is of the wrong type, or there is nothing to check.
    """
    if validate is None and max_retries is None and feedback is False:
        return None
    if validate is None and output_type is None:
        raise SamplingParamsError(
            "max_retries and feedback need validate, or a type to check: json_schema or dtype"
        )
    function = None
    if is_type(validate):
        output_type = json_output(validate, role="validate")
    elif callable(validate):
        function = validate
    elif validate is not None:
        raise SamplingParamsError(f"validate must be a function or a type, not {validate!r}")
    retries = DEFAULT_RETRIES if max_retries is None else max_retries
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= MAX_RETRIES:
        raise SamplingParamsError(f"max_retries must be between 0 and {MAX_RETRIES}, not {max_retries!r}")
    if not isinstance(feedback, bool) and not callable(feedback):
        raise SamplingParamsError(f"feedback must be True, False or a function, not {feedback!r}")
    return Check(output_type, function, retries, feedback)


def _reason(error: ValueError | AssertionError) -> str:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return problems(error)
    return str(error) or type(error).__name__
