"""What a program writes: ``gen``, ``select``, and the roles. Each returns a node; nothing runs here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from sgl_like.errors import SamplingParamsError
from sgl_like.frontend.calls import positive_seconds
from sgl_like.frontend.choices import ChoicesSamplingMethod, token_length_normalized
from sgl_like.frontend.expr import Expr, ExprList, Gen, RoleBegin, RoleEnd, Select, flatten
from sgl_like.frontend.outputs.output_types import gen_type
from sgl_like.frontend.outputs.validation import make_check
from sgl_like.frontend.placeholders import has_placeholder
from sgl_like.frontend.tools.tools import make_tool_use
from sgl_like.runtime.sampling_params import CONSTRAINTS, SamplingParams

__all__ = [
    "assistant", "assistant_begin", "assistant_end", "gen", "role", "select", "system", "system_begin", "system_end",
    "user", "user_begin", "user_end",
]  # fmt: skip

MIN_TEMPERATURE = 1e-5
"""Of a `select` that draws; SGLang's programs may ask for so little where they mean 0."""


def gen(
    name: str | None = None,
    max_tokens: int | None = None,
    min_tokens: int | None = None,
    n: int | None = None,
    stop: str | Sequence[str] | None = None,
    stop_token_ids: Sequence[int] | None = None,
    stop_regex: str | Sequence[str] | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    ignore_eos: bool | None = None,
    return_logprob: bool | None = None,
    logprob_start_len: int | None = None,
    top_logprobs_num: int | None = None,
    return_text_in_logprobs: bool | None = None,
    dtype: type | str | None = None,
    choices: Sequence[str] | None = None,
    choices_method: ChoicesSamplingMethod | None = None,
    regex: Any = None,
    json_schema: Any = None,
    *,
    ebnf: str | None = None,
    structural_tag: Mapping[str, Any] | str | None = None,
    property_order: str | None = None,
    whitespace: str | None = None,
    seed: int | None = None,
    repetition_penalty: float | None = None,
    logit_bias: Mapping[int | str, float] | None = None,
    bad_words: str | Sequence[str] | None = None,
    token_ids_logprob: Sequence[int] | None = None,
    validate: Any = None,
    max_retries: int | None = None,
    feedback: bool | Callable[[str, str], str] = False,
    tools: Sequence[Callable[..., Any]] | None = None,
    tool_choice: str | None = None,
    max_tool_rounds: int | None = None,
    on_tool_error: Literal["return", "raise"] = "return",
    timeout: float | None = None,
) -> Gen | Select:
    """Text that the model writes; read it as ``s[name]``. ``None`` leaves a parameter to the run's default.

    What is not explained here is as in `sgl_like.SamplingParams`; ``max_tokens`` is its ``max_new_tokens``,
    ``min_tokens`` its ``min_new_tokens``.

    * ``name``: variable for the text, a `GenText`: a str that knows the value it stands for (``s[name].parsed``), its
      ``finish_reason``, ``token_ids``, ``logprobs`` and ``meta``.
    * ``n``: so many outputs; the value is a list of texts, and the program goes on with the first.
      ``get_meta_info`` has theirs in a list ``"samples"``, and ``text_iter(name, index=i)`` streams each.
    * ``return_logprob``, ``logprob_start_len``, ``top_logprobs_num``, ``token_ids_logprob``,
      ``return_text_in_logprobs``: log-probabilities, for ``get_meta_info``, as in `sgl_like.Engine.generate`.
    * ``dtype``: int, float, str or bool: the text is a literal of that type, held by a regex; ``parsed`` is its value.
    * ``choices``: the text is one of these; the same as `select`.
    * ``regex``: the whole text matches this (``re.fullmatch``).
    * ``json_schema``: the text is JSON valid under this: a JSON Schema (a dict or its JSON text), or a type: a pydantic
      model, a dataclass, a TypedDict, an Enum, ``list[...]``, ``Literal[...]``, a union. ``parsed`` is of that type.
    * ``ebnf``: the text is of this grammar, in GBNF or Lark syntax.
    * ``structural_tag``: the text is free up to a trigger, and JSON under a schema after it.
    * ``property_order``: ``"schema"`` or ``"any"``: order of the properties of an object.
    * ``whitespace``: ``"compact"`` or ``"any"``: whether there may be any between the tokens of JSON.
    * ``seed``: of this gen alone, taken as it is; a run's seed is varied from gen to gen and fork to fork.
    * ``validate``: a function that gets the value (of a gen without a type, the text), and refuses it by returning
      ``False`` or raising ValueError or AssertionError; what else it raises fails the program. Or a type: the text has
      to be its JSON. It runs on a thread of its own, and may be a coroutine function. What is refused is sampled
      again, with other random numbers, and leaves nothing behind; text is streamed when it has been accepted. A
      retry of a greedy gen, which would repeat itself, is sampled at temperature 0.7, from a fixed seed if there is
      none, unless there is feedback.
    * ``max_retries``: how often, 2 by default; then the program fails, by a `ValidationError`. Without ``validate``,
      the value itself is checked: that the text was not cut, and the rules of its type that no schema can express.
    * ``feedback``: ``True``: the model sees what was refused and why before it tries again, as a turn of the user. Or
      a function that makes that turn's text from output and reason.
    * ``tools``: functions that the model may call. Names, types and docstrings become JSON Schemas, to which the
      arguments are held. A function is called once, on a thread of its own (it may be a coroutine function); its result
      goes into the prompt, in the form of the model's chat template if that has one, and the model goes on. The value
      is the text of the last round; its ``tool_calls`` has the calls. Tell the model of them by `tool_instructions`.
    * ``tool_choice``: ``"auto"``: the model decides; ``"required"``, or a function's name: it begins with a call.
    * ``max_tool_rounds``: most calls, 8 by default. Then the model answers.
    * ``on_tool_error``: ``"return"``: the model sees what a function raised; ``"raise"``: the program fails.
    * ``timeout``: seconds that it may take with all it does; then the program fails, by a `DeadlineExceeded`.

    Raises:
        SamplingParamsError: parameters that exclude each other. Values are checked when the gen runs; what the
            backend cannot do becomes the state's error.
    """
    _check_name(name)
    given = {
        "max_new_tokens": max_tokens, "min_new_tokens": min_tokens, "n": n, "stop": stop,
        "stop_token_ids": stop_token_ids, "stop_regex": stop_regex, "temperature": temperature, "top_p": top_p,
        "top_k": top_k, "min_p": min_p, "frequency_penalty": frequency_penalty,
        "presence_penalty": presence_penalty, "ignore_eos": ignore_eos, "return_logprob": return_logprob,
        "logprob_start_len": logprob_start_len, "top_logprobs_num": top_logprobs_num,
        "return_text_in_logprobs": return_text_in_logprobs, "ebnf": ebnf,
        "structural_tag": structural_tag, "property_order": property_order, "whitespace": whitespace,
        "seed": seed, "repetition_penalty": repetition_penalty, "logit_bias": logit_bias,
        "bad_words": bad_words, "token_ids_logprob": token_ids_logprob,
    }  # fmt: skip
    params = {key: _frozen(value) for key, value in given.items() if value is not None}
    unknown = {"regex": regex, "json_schema": json_schema}
    unknown = {key: value for key, value in unknown.items() if isinstance(value, Expr)}  # in a trace
    output_type, held = gen_type(
        dtype, None if "regex" in unknown else regex, None if "json_schema" in unknown else json_schema
    )
    params |= {**held, **unknown}
    check = make_check(output_type, validate, max_retries, feedback)
    tool_use = make_tool_use(tools, tool_choice, max_tool_rounds, on_tool_error)
    if choices is not None:
        if check is not None or tool_use is not None:
            raise SamplingParamsError(
                "validate, max_retries, feedback and tools cannot be combined with choices"
            )
        return _gen_choices(name, choices, choices_method, params, timeout)
    if choices_method is not None:
        raise SamplingParamsError("choices_method needs choices")
    constraints = [key for key in ("dtype", *CONSTRAINTS) if key in params]
    if len(constraints) > 1:
        raise SamplingParamsError(f"{' and '.join(constraints)} cannot be given together; use one of them")
    if tool_use is not None and (constraints or check is not None or params.get("n", 1) != 1):
        raise SamplingParamsError(
            "tools cannot be combined with a constraint, validate or n: put them into a gen that comes after it"
        )
    return Gen(
        name, params, check.output_type if check else output_type, check, tool_use, positive_seconds(timeout)
    )


def _gen_choices(
    name: str | None,
    choices: Sequence[str],
    method: ChoicesSamplingMethod | None,
    params: dict[str, Any],
    timeout: float | None,
) -> Select:
    temperature, seed = params.pop("temperature", 0.0), params.pop("seed", None)
    params.pop("max_new_tokens", None)  # the longest choice is the limit anyway
    if params:
        raise SamplingParamsError(f"{', '.join(params)} cannot be combined with choices")
    return select(name, choices, temperature, method or token_length_normalized, seed=seed, timeout=timeout)


def select(
    name: str | None = None,
    choices: Sequence[str] | None = None,
    temperature: float = 0.0,
    choices_method: ChoicesSamplingMethod = token_length_normalized,
    *,
    seed: int | None = None,
    timeout: float | None = None,
) -> Select:
    """One of `choices`, by their probabilities after the prompt; read it as ``s[name]``.

    All choices are scored in one pass. ``get_meta_info(name)["choice_probs"]`` has the probability of each, given that
    it is one of them; they sum to 1. Prompt and choice are tokenised together, so it makes no difference whether
    a blank stands at the end of the prompt or at the beginning of the choices.

    Args:
        name: of the variable.
        choices: distinct, non-empty.
        temperature: 0 takes the best by `choices_method`. Greater values draw: 1 by ``choice_probs``, others by their
            powers (1 / `temperature`), which then are the ``choice_probs``.
        choices_method: how the best is found: `token_length_normalized` (mean log-probability of its tokens),
            `greedy_token_selection`, `unconditional_likelihood_normalized`, or your own subclass of
            `ChoicesSamplingMethod`.
        seed: of this draw; by default the run's, varied from place to place.
        timeout: seconds that it may take.

    Raises:
        SamplingParamsError: `choices` is not a non-empty list of distinct non-empty strings; `temperature` is not a
            finite number of at least 0; another `choices_method` than the default is given for a draw.
    """
    _check_name(name)
    if isinstance(choices, str) or not isinstance(choices, Iterable):
        raise SamplingParamsError(f"choices must be a list of strings, not {choices!r}")
    options = tuple(choices)
    if not options:
        raise SamplingParamsError("choices must not be empty")
    for option in options:
        if not isinstance(option, str) or not option:
            raise SamplingParamsError(f"choices must be non-empty strings, not {option!r}")
        if has_placeholder(option):
            raise SamplingParamsError("choices must be text; a gen cannot be part of one")
    if len(set(options)) < len(options):
        twice = next(option for option in options if options.count(option) > 1)
        raise SamplingParamsError(f"choices must be distinct; {twice!r} is there twice")
    if not isinstance(choices_method, ChoicesSamplingMethod):
        raise SamplingParamsError(f"choices_method must be a ChoicesSamplingMethod, not {choices_method!r}")
    drawing = SamplingParams(temperature=temperature, seed=seed).temperature > MIN_TEMPERATURE
    if drawing and choices_method is not token_length_normalized:
        raise SamplingParamsError(
            f"choices_method has no say at temperature={temperature}: choices are drawn by their probabilities then"
        )
    return Select(
        name, options, choices_method, temperature if drawing else 0.0, seed, positive_seconds(timeout)
    )


def system(expr: Expr | str | None = None) -> ExprList:
    """A system message with this content; without content, an empty one."""
    return role_message("system", expr)


def user(expr: Expr | str | None = None) -> ExprList:
    """A user message with this content; without content, an empty one."""
    return role_message("user", expr)


def assistant(expr: Expr | str | None = None) -> ExprList:
    """An assistant message with this content; without content, an empty one."""
    return role_message("assistant", expr)


def role(role: str, expr: Expr | str | None = None) -> ExprList:
    """A message of any role that the chat template has, such as ``"tool"``; without content, an empty one.

    Another role is the error of the state.
    """
    return role_message(role, expr)


def role_message(role: str, expr: Expr | str | None) -> ExprList:
    """A whole message of `role`."""
    return ExprList((RoleBegin(role), *flatten("" if expr is None else expr), RoleEnd(role)))


def system_begin() -> RoleBegin:
    """A system message begins."""
    return RoleBegin("system")


def system_end() -> RoleEnd:
    """The open system message ends."""
    return RoleEnd("system")


def user_begin() -> RoleBegin:
    """A user message begins."""
    return RoleBegin("user")


def user_end() -> RoleEnd:
    """The open user message ends."""
    return RoleEnd("user")


def assistant_begin() -> RoleBegin:
    """An assistant message begins."""
    return RoleBegin("assistant")


def assistant_end() -> RoleEnd:
    """The open assistant message ends."""
    return RoleEnd("assistant")


def _check_name(name: Any) -> None:
    if not isinstance(name, str | Expr | None):  # an expression is an argument that is unknown in a trace
        raise SamplingParamsError(f"name must be a string, not {name!r}")


def _frozen(value: Any) -> Any:
    """A caller's list must not change under a node."""
    if isinstance(value, dict):
        return dict(value)
    return tuple(value) if isinstance(value, list) else value
