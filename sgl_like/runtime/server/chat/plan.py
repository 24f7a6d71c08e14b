"""What a chat asks of the engine: its prompt, what holds the output, and how the answer is to be read.

    no tools, or tool_choice "none"        text, held by the request's own constraint if it has one
    "auto"                                 free text; what begins like a call is held to one of the functions
    "required", or a function's name       calls and nothing else
    "auto", and the text has to be JSON    calls and nothing else, or the JSON
    one call at most (not `parallel`)      the output ends with its first call

Arguments are held to the functions' JSON Schemas, strict or not.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from sgl_like.runtime.reasoning import REASONING_MODELS, Tags, make_splitter
from sgl_like.runtime.server.chat.forms import CallForm, call_form, plain_messages
from sgl_like.runtime.server.chat.reading import AnswerReader
from sgl_like.runtime.server.constraints import json_text
from sgl_like.runtime.server.http.errors import bad_request
from sgl_like.runtime.server.http.routes import Call
from sgl_like.runtime.server.prompts import encode_chat
from sgl_like.runtime.tokenizer.chat_template import JinjaTemplate
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer

MAX_TOOLS = 128
NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_NINE = re.compile(r"length\s*!=\s*9")  # templates that want ids of calls in Mistral's form
_LIMITED = (
    "$ref",
    "allOf",
    "anyOf",
    "oneOf",
    "patternProperties",
    "additionalProperties",
    "unevaluatedProperties",
)


@dataclass(frozen=True)
class ToolUse:
    """Functions that the model may call.

    Args:
        tools: all that it is told of, in OpenAI's format.
        callable: names of those that it may call; empty: none.
        required: whether it has to call one.
        parallel: whether it may call several.
    """

    tools: Sequence[Mapping[str, Any]]
    callable: Sequence[str]
    required: bool = False
    parallel: bool = True


@dataclass(frozen=True)
class ChatPlan:
    """Of a chat.

    Args:
        ids: the prompt.
        held: arguments of `SamplingParams` that hold the output.
        stop: strings and
        stop_token_ids: tokens that end an answer, besides the client's own.
        form: how calls look, if there may be any.
        names: of the functions that may be called.
        reasoning: tags around what the model thinks, if that is told apart.
        prompt_end: where the answer begins.
    """

    ids: list[int]
    held: Mapping[str, Any]
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    form: CallForm | None = None
    names: Sequence[str] = ()
    reasoning: bool = False
    prompt_end: str = ""

    def reader(self) -> AnswerReader:
        """For one answer."""
        splitter = make_splitter(None, self.prompt_end) if self.reasoning else None
        return AnswerReader(self.form, self.names, splitter)

    def shortened(self, keep: int) -> ChatPlan:
        """With the last `keep` tokens of the prompt."""
        return replace(self, ids=self.ids[-keep:])


async def plan_chat(
    call: Call,
    messages: Sequence[Mapping[str, Any]],
    *,
    use: ToolUse | None = None,
    held: Mapping[str, str] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    variables: Mapping[str, Any] | None = None,
    separate_reasoning: bool = True,
    param: str = "messages",
) -> ChatPlan:
    """Plan a chat.

    Args:
        call: whose model and limits count.
        messages: in OpenAI's format; contents are strings, arguments of calls are objects.
        use: functions.
        held: the constraint that the client wants, as `constraint_params` gives it.
        add_generation_prompt: whether the beginning of an answer comes last.
        continue_final_message: the answer goes on from the last message.
        variables: of the template.
        separate_reasoning: tell what the model thinks from what it says, if the template has a form for that.
        param: what the client calls the conversation.

    Raises:
        ApiError: 400.
    """
    tokenizer, constraint = call.server.tokenizer, dict(held or {})
    tools = list(use.tools) if use is not None else []
    form = _form_in_use(tokenizer, messages, tools)
    if form is not None and form.plain:
        messages, shown = plain_messages(messages, tools), None
    else:
        messages, shown = _with_short_ids(tokenizer, messages), tools or None
    ids = await encode_chat(
        call,
        messages,
        tools=shown,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=continue_final_message,
        variables=variables,
        param=param,
    )
    names: Sequence[str] = use.callable if use is not None else ()
    holds_all = bool(constraint)  # from the first character on, so that there can be no reasoning
    if names and use is not None and form is not None:
        otherwise = _otherwise(constraint, form, use)
        constraint = {"structural_tag": _tag(call, form, use, otherwise), "whitespace": "any"}
        holds_all = use.required or bool(otherwise)
    tags = _reasoning_tags(tokenizer)
    opened = tags is not None and (
        prompt_end := tokenizer.decode(ids[-32:], skip_special_tokens=False)
    ).rstrip().endswith(tags.begin)
    if opened and tags is not None and holds_all:
        ids = ids + tokenizer.encode_segments([(f"{tags.end}\n\n", True)])
        opened = False
    splits = tags is not None and separate_reasoning and not holds_all
    stop, stop_ids = tokenizer.template_stops
    return ChatPlan(
        ids,
        constraint,
        stop,
        stop_ids,
        form if names else None,
        names,
        splits,
        prompt_end if opened else "",
    )


def _form_in_use(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any]
) -> CallForm | None:
    """``None`` if functions have no part in the conversation."""
    if not tools and not any(each.get("tool_calls") or each["role"] == "tool" for each in messages):
        return None
    return call_form(tokenizer)


def _otherwise(constraint: Mapping[str, Any], form: CallForm, use: ToolUse) -> dict[str, Any]:
    """The constraint of an answer that calls nothing, as an option of a structural tag.

    Raises:
        ApiError: 400: it is none of JSON, or JSON looks like a call.
    """
    if not constraint:
        return {}
    schema = constraint.get("json_schema")
    if schema is None or (form.begin[0] in "{[" and not use.required):
        raise bad_request(
            f"a constraint ({next(iter(constraint))}) and functions that may be called cannot be given together;"
            " say tool_choice 'none'",
            param="tool_choice",
        )
    return {} if use.required else {"otherwise": orjson.loads(schema)}


def _tag(call: Call, form: CallForm, use: ToolUse, otherwise: Mapping[str, Any]) -> str:
    limits = call.server.config.limits
    functions = {tool["function"]["name"]: tool["function"] for tool in use.tools}
    structures = [
        form.structure(name, arguments_schema(functions[name], f"tools ({name})")) for name in use.callable
    ]
    tag = {
        "structures": structures,
        "triggers": [form.trigger],
        "free_text": not use.required,
        "stop_after_first": not use.parallel,
        **otherwise,
    }
    return json_text("tools", tag, limits)


def arguments_schema(function: Mapping[str, Any], param: str) -> dict[str, Any]:
    """The JSON Schema of a function's arguments. Without one there are none; what it does not say is not allowed.

    Raises:
        ApiError: 400: it is no schema of an object.
    """
    schema = function.get("parameters")
    if not schema:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        raise bad_request(f"{param}: parameters must be a JSON Schema with type 'object'", param="tools")
    if "properties" in schema and not any(name in schema for name in _LIMITED):
        return {**schema, "type": "object", "additionalProperties": False}
    return {**schema, "type": "object"}


def _reasoning_tags(tokenizer: Tokenizer) -> Tags | None:
    """Those that the model's template has."""
    template = tokenizer.chat_template
    if not isinstance(template, JinjaTemplate):
        return None
    return next(
        (tags for tags in _FAMILIES if tags.begin in template.source or tags.end in template.source), None
    )


_FAMILIES = [
    tags for tags in dict.fromkeys(REASONING_MODELS.values()) if tags is not None and not tags.assumed
]


def _with_short_ids(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]
) -> Sequence[Mapping[str, Any]]:
    """Ids of calls in the form that Mistral's templates insist on."""
    template = tokenizer.chat_template
    if not isinstance(template, JinjaTemplate) or _NINE.search(template.source) is None:
        return messages
    found = []
    for message in messages:
        if message.get("tool_calls"):
            calls = [{**each, "id": _short(each.get("id") or "")} for each in message["tool_calls"]]
            message = {**message, "tool_calls": calls}
        if message.get("tool_call_id"):
            message = {**message, "tool_call_id": _short(message["tool_call_id"])}
        found.append(message)
    return found


def _short(id: str) -> str:
    return hashlib.blake2b(id.encode()).hexdigest()[:9]
