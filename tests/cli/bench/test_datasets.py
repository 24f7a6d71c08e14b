from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from sgl_like.cli.bench.datasets import PromptFile, RandomTokens
from sgl_like.cli.bench.dialects import Sampling, body
from sgl_like.errors import DataError


def test_groups_share_a_prefix_and_nothing_else() -> None:
    dataset = RandomTokens(10, 5, groups=3, prefix_len=20)
    found = list(islice(dataset.prompts(0), 12))
    texts = [prompt.text for prompt in found]
    assert all(len(text or "") == 30 for text in texts)
    assert len({tuple((text or "")[:20]) for text in texts}) == 3
    assert all((a or "")[:20] == (b or "")[:20] for a, b in zip(texts, texts[3:], strict=False))
    assert len({tuple((text or "")[20:]) for text in texts}) == 12


def test_the_seed_decides() -> None:
    dataset = RandomTokens(10, 5)
    assert next(dataset.prompts(1)) == next(dataset.prompts(1)) != next(dataset.prompts(2))


def test_lengths_are_drawn() -> None:
    found = list(islice(RandomTokens(100, 50, spread=0.5).prompts(0), 300))
    lengths = {len(prompt.text or "") for prompt in found}
    assert min(lengths) >= 50 and max(lengths) <= 100 and len(lengths) > 30
    assert {prompt.max_tokens for prompt in found} == set(range(25, 51))


def test_words_for_endpoints_that_take_no_ids() -> None:
    text = next(RandomTokens(10, 5, as_text=True).prompts(0)).text
    assert isinstance(text, str)
    assert len(text.split()) == 10


def test_a_file(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "max_tokens": 3},
        {"prompt": [1, 2], "body": {"top_k": 1}},
        {"messages": [{"role": "user", "content": "b"}]},
    ]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    found = list(islice(PromptFile(file, 7).prompts(0), 6))
    assert sorted(str(prompt) for prompt in found[:3]) == sorted(str(prompt) for prompt in found[3:])
    by_length = {prompt.max_tokens: prompt for prompt in found}
    assert by_length[3].text == "a"
    assert {prompt.max_tokens for prompt in found} == {3, 7}
    assert any(prompt.extra == {"top_k": 1} for prompt in found)
    assert any(prompt.messages == rows[2]["messages"] for prompt in found)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "1: "),
        ("[]", "object"),
        ("{}", "prompt"),
        ('{"prompt": [1, true]}', "prompt"),
        ('{"messages": "x"}', "messages"),
        ('{"prompt": "x", "max_tokens": "9"}', "max_tokens"),
        ("", "no prompts"),
    ],
)
def test_a_file_that_holds_something_else(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(line)
    with pytest.raises(DataError, match=message):
        PromptFile(file, 7)


def test_endpoints_take_what_they_can() -> None:
    ids = next(RandomTokens(3, 5).prompts(0))
    native = body("generate", ids, Sampling())
    assert native["input_ids"] == ids.text
    assert native["sampling_params"] == {"max_new_tokens": 5, "temperature": 0.0, "ignore_eos": True}
    with pytest.raises(DataError, match="no token ids"):
        body("chat", ids, Sampling())
    talk = ids._replace(text=None, messages=[{"role": "user", "content": "b"}])
    assert body("chat", talk, Sampling(ignore_eos=False))["messages"] == talk.messages
    with pytest.raises(DataError, match="no messages"):
        body("completions", talk, Sampling())
    assert "stream_options" not in body("completions", ids, Sampling(stream=False))
