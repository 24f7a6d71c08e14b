"""The constraint engine in a loop with numpy alone."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "numpy_loop.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The example as a module, loaded by path."""
    spec = importlib.util.spec_from_file_location("numpy_loop", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_runs_and_needs_no_torch() -> None:
    """As a program of its own; its outputs are the same every time."""
    script = f"import runpy, sys; runpy.run_path({str(EXAMPLE)!r}, run_name='__main__'); print('torch' in sys.modules)"
    runs = [
        subprocess.run([sys.executable, "-c", script], cwd=EXAMPLE.parents[1], capture_output=True, text=True)
        for _ in range(2)
    ]
    assert runs[0].returncode == 0, runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
    *lines, has_torch = runs[0].stdout.splitlines()
    assert has_torch == "False"
    assert len(lines) == 6
    assert all({"city", "nights"} <= ast.literal_eval(line).keys() for line in lines[3:])


@pytest.mark.parametrize("max_tokens", [0, 1, 3, 10, 100])
def test_outputs_are_whole_however_many_tokens_there_are(example: ModuleType, max_tokens: int) -> None:
    compiler = example.make_compiler()
    regex, schema = compiler.compile_regex(example.REGEX), compiler.compile_json_schema(example.SCHEMA)
    for seed in range(20):
        assert re.fullmatch(example.REGEX, example.generate(regex, seed, max_tokens).decode())
        jsonschema.validate(json.loads(example.generate(schema, seed, max_tokens).decode()), example.SCHEMA)
