"""The public face: names, laziness, types."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sgl_like as sgl
from sgl_like import errors

ROOT = Path(__file__).parents[2]
EXPECTED = {
    "Anthropic",
    "ChatTemplate",
    "ChoicesDecision",
    "ChoicesSamplingMethod",
    "Engine",
    "GenText",
    "OpenAI",
    "OpenAICompatible",
    "ProgramState",
    "Runtime",
    "RuntimeEndpoint",
    "SamplingParams",
    "ToolCall",
    "__version__",
    "assistant",
    "assistant_begin",
    "assistant_end",
    "cache_stats",
    "cached",
    "flush_cache",
    "function",
    "gen",
    "gen_int",
    "gen_string",
    "get_chat_template",
    "get_chat_template_by_model_path",
    "get_server_info",
    "global_config",
    "greedy_token_selection",
    "image",
    "pinned",
    "record",
    "register_chat_template",
    "register_chat_template_matching_function",
    "replay",
    "role",
    "select",
    "separate_reasoning",
    "set_default_backend",
    "set_worker_threads",
    "Event",
    "instrument_opentelemetry",
    "on",
    "system",
    "system_begin",
    "system_end",
    "token_length_normalized",
    "tool_instructions",
    "unconditional_likelihood_normalized",
    "user",
    "user_begin",
    "user_end",
    "video",
    "view",
}


def test_names_are_the_documented_ones() -> None:
    assert set(sgl.__all__) == EXPECTED | set(errors.__all__)
    assert set(sgl.__all__) <= set(dir(sgl))


def test_every_name_can_be_loaded() -> None:
    for name in sgl.__all__:
        assert getattr(sgl, name) is not None
    assert sgl.ProgramError is errors.ProgramError


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'generate_text'"):
        sgl.generate_text  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "sgl_like/__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(sgl.__all__) - {"__version__"}


def test_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project.get("version", sgl.__version__) == sgl.__version__


def test_frontend_loads_no_torch() -> None:
    code = (
        "import sys, sgl_like as sgl\n"
        "before = len(sys.modules)\n"
        "sgl.function, sgl.gen, sgl.Runtime, sgl.select, sgl.set_default_backend, sgl.ProgramState\n"
        "print(sorted({'torch', 'numpy', 'numba', 'pydantic', 'tokenizers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
