"""SGLang's names take SGLang's parameters in SGLang's order; every known defect and wanted feature has a test."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.frontend.outputs import dtypes
from sgl_like.frontend.state import ProgramState

TESTS = Path(__file__).parents[1]
SAMPLING = (
    "n stop stop_token_ids stop_regex temperature top_p top_k min_p frequency_penalty presence_penalty ignore_eos"
    " return_logprob logprob_start_len top_logprobs_num return_text_in_logprobs"
)
TYPED = f"name max_tokens {SAMPLING}"
PARAMETERS: dict[str, str] = {
    "function": "func num_api_spec_tokens",
    "gen": f"name max_tokens min_tokens {SAMPLING} dtype choices choices_method regex json_schema",
    "gen_int": TYPED,
    "gen_string": TYPED,
    "select": "name choices temperature choices_method",
    "system": "expr",
    "user": "expr",
    "assistant": "expr",
    "system_begin": "",
    "system_end": "",
    "user_begin": "",
    "user_end": "",
    "assistant_begin": "",
    "assistant_end": "",
    "video": "path num_frames",
    "separate_reasoning": "expr model_type",
    "set_default_backend": "backend",
    "flush_cache": "backend",
    "get_server_info": "backend",
    "RuntimeEndpoint": "base_url api_key verify chat_template_name",
}
STATE: dict[str, str] = {
    "fork": "size position_ids_offset",
    "var_scope": "name",
    "get_var": "name",
    "set_var": "name value",
    "get_meta_info": "name",
    "system": "expr",
    "user": "expr",
    "assistant": "expr",
    "text": "",
    "messages": "",
    "sync": "",
    "error": "",
    "copy": "",
    "text_iter": "var_name",
    "text_async_iter": "var_name return_meta_data",
}
RUN_DEFAULTS = "max_new_tokens " + SAMPLING.removeprefix("n ")


def positional(function: Callable[..., Any]) -> list[str]:
    """Names of the parameters that can be given without their name."""
    parameters = inspect.signature(function).parameters.values()
    return [
        each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD and each.name != "self"
    ]


@pytest.mark.parametrize("name", PARAMETERS)
def test_names_have_sglangs_parameters(name: str) -> None:
    assert positional(getattr(sgl, name)) == PARAMETERS[name].split()


@pytest.mark.parametrize("name", STATE)
def test_states_have_sglangs_methods(name: str) -> None:
    assert positional(getattr(ProgramState, name)) == STATE[name].split()


@pytest.mark.parametrize(
    "name", ["image", "Runtime", "Engine", "OpenAI", "Anthropic", "global_config", "greedy_token_selection",
             "token_length_normalized", "unconditional_likelihood_normalized"],
)  # fmt: skip
def test_the_other_names_are_there(name: str) -> None:
    assert getattr(sgl, name) is not None


def test_choice_methods_are_called_as_sglangs() -> None:
    parameters = inspect.signature(sgl.ChoicesSamplingMethod.__call__).parameters
    logprobs = ("input_token", "output_token", "unconditional_token", "normalized_prompt")
    wanted = {"choices", *(f"{of}_logprobs" for of in logprobs)}
    assert wanted <= set(parameters)


def test_programs_run_as_sglangs() -> None:
    @sgl.function
    def program(s: Any, word: str) -> str:
        s += word
        return word

    options = dict.fromkeys(RUN_DEFAULTS.split())
    assert {"num_threads", "progress_bar", "generator_style"} <= set(
        inspect.signature(program.run_batch).parameters
    )
    assert program.arguments.call(("a",), options).options.keys() >= options.keys()


def test_regexes_of_types_are_there() -> None:
    for regex, text in [("INT", "-12"), ("FLOAT", "3.5"), ("BOOL", "True"), ("STR", '"a b"')]:
        assert re.fullmatch(getattr(dtypes, f"REGEX_{regex}"), text)


@pytest.mark.parametrize(("letter", "last"), [("b", 35), ("c", 24)])
def test_every_defect_and_feature_has_a_test(letter: str, last: int) -> None:
    """Defects of SGLang's frontend are ``b#1`` to ``b#35``; what is to be better is ``c#1`` to ``c#24``."""
    marks: set[str] = set()
    for file in TESTS.rglob("test_*.py"):
        if file.name != Path(__file__).name:
            marks |= set(re.findall(rf"\b{letter}#(\d+)", file.read_text(encoding="utf-8")))
    assert {str(number) for number in range(1, last + 1)} <= marks
