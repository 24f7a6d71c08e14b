"""The tiny model's training scripts, and the assets they made. Nothing here trains or uses the network."""

from __future__ import annotations

import importlib.util
import itertools
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "examples" / "train_tiny"
ASSETS = ROOT / "sgl_like" / "assets" / "tiny"
SNIPS = ROOT.parent / "shared" / "data" / "snips" / "train.jsonl"
STRINGS = [
    "",
    " ",
    "  lead and  trail ",
    "안녕하세요 세계",
    "🙂👩‍👩‍👧 emoji",
    "a\n\n\tb\r\n",
    '{"a":"b","c":"\\""}',
    "\x00\x7f",
    "é e\u0301",
]

needs_snips = pytest.mark.skipif(not SNIPS.exists(), reason=f"SNIPS data is not at {SNIPS}")


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """The scripts import each other by bare name, so their folder is on the path while these tests run."""
    before = set(sys.modules)
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(SCRIPTS)):
            del sys.modules[name]


def load(name: str) -> ModuleType:
    """A script as a module, loaded by path."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


ROWS = [
    {
        "text": "play jazz by Miles Davis",
        "intent": "PlayMusic",
        "slots": {"genre": "jazz", "artist": "Miles Davis"},
    },
    {
        "text": "add Blue in Green to my road trip",
        "intent": "AddToPlaylist",
        "slots": {"entity_name": "Blue in Green", "playlist_owner": "my", "playlist": "road trip"},
    },
    {
        "text": "Will it snow at noon in Rome, Italy?",
        "intent": "GetWeather",
        "slots": {"condition_description": "snow", "timeRange": "noon", "city": "Rome", "country": "Italy"},
    },
]


def test_align_finds_values_in_order_and_not_inside_words() -> None:
    prepare = load("prepare")
    row = {"text": "playlist my list is it", "intent": "X", "slots": {"a": "list", "b": "it"}}
    assert prepare.align(row) == [(12, 16, "a"), (20, 22, "b")]
    backwards = {"text": "one two", "intent": "X", "slots": {"b": "two", "a": "one"}}
    assert list(prepare.ordered(backwards)["slots"]) == ["a", "b"]


def test_split_is_deterministic_and_shares_no_text() -> None:
    prepare = load("prepare")
    rows = [
        {"text": f"Say {i // 2}" if i % 2 else f"say {i // 2}", "intent": "ab"[i % 2], "slots": {}}
        for i in range(600)
    ]
    split = prepare.split_rows(rows)
    assert split == prepare.split_rows(rows)
    assert len(split.dev) == 200
    assert not {r["text"].lower() for r in split.train} & {r["text"].lower() for r in split.dev}


@needs_snips
def test_split_of_the_data() -> None:
    prepare = load("prepare")
    split = prepare.split_rows(prepare.read_rows(SNIPS))
    assert Counter(row["intent"] for row in split.dev).most_common()[-1][1] == 100
    assert len(split.dev) == 700 and len(split.train) > 12_900
    assert all(prepare.align(row) for row in split.dev)


def check_variants(rows: list[dict[str, object]], rounds: int) -> int:
    """Every variant's values stand in its text, in order; returns how many differ from their row."""
    prepare, augment = load("prepare"), load("augment")
    data, rng, changed = augment.Augmenter(rows), random.Random(3), 0
    for _, index in itertools.product(range(rounds), range(len(rows))):
        row = data.variant(index, rng)
        changed += row != rows[index]
        assert row["intent"] == rows[index]["intent"]
        assert set(row["slots"]) == set(rows[index]["slots"])
        assert all(row["slots"].values())
        at = 0
        for value in row["slots"].values():
            at = row["text"].index(value, at) + len(value)
        assert prepare.align(row)
    return changed


def test_variants_keep_labels_true() -> None:
    assert 120 < check_variants(ROWS, 200) < 500


@needs_snips
def test_variants_of_the_data_keep_labels_true() -> None:
    prepare = load("prepare")
    check_variants(prepare.read_rows(SNIPS)[::10], 1)


def test_variants_are_reproducible() -> None:
    data = load("augment").Augmenter(ROWS)
    one, two = random.Random(5), random.Random(5)
    assert [data.variant(1, one) for _ in range(50)] == [data.variant(1, two) for _ in range(50)]


def brute_force(numbers: tuple[float, ...]) -> set[float]:
    """Everything reachable, in another way than the generator: ordered pairs, rules as filters."""
    if len(numbers) == 1:
        return {numbers[0]}
    found: set[float] = set()
    for i, j in itertools.permutations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
        values = [a + b, a - b, a * b] + ([a / b] if b else [])
        for value in values:
            if 0 <= value <= 100 and value == int(value):
                found |= brute_force((*rest, value))
    return found


def numbers_in(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.strip(" .?").split(", ")))


def test_solutions_evaluate() -> None:
    puzzles = load("puzzles")
    rng = random.Random(1)
    for _ in range(300):
        user, answer = puzzles.solution(rng)
        target, numbers = user.removeprefix("Reach ").split(" with ")
        left = list(numbers_in(numbers))
        for line in answer.split("\n"):
            equation, after = line.removesuffix(")").split(" (left: ")
            expression, value = equation.split(" = ")
            assert eval(expression) == int(value)
            a, _, b = expression.split()
            left.remove(int(a))
            left.remove(int(b))
            left.append(int(value))
            assert left == list(numbers_in(after))
        assert left == [int(target)]
        assert puzzles.passes(int(target), numbers_in(numbers), answer)


def test_value_labels_are_true_and_balanced() -> None:
    puzzles = load("puzzles")
    rng, labels = random.Random(2), Counter[str]()
    for _ in range(300):
        user, answer = puzzles.labelled_can(rng)
        target, numbers = user.removeprefix("Can ").split(" be reached with ")
        assert (int(target) in brute_force(numbers_in(numbers))) == (answer == "yes")
        labels[answer] += 1
    assert 120 < labels["yes"] < 180


def test_check_labels_are_true_and_balanced() -> None:
    puzzles = load("puzzles")
    rng, labels = random.Random(2), Counter[str]()
    for _ in range(400):
        user, answer = puzzles.labelled_check(rng)
        head, steps = user.split(": ")
        target, numbers = head.removeprefix("Check ").split(" with ")
        assert puzzles.is_solution(int(target), numbers_in(numbers), steps.split("; ")) == (
            answer == "correct"
        )
        labels[answer] += 1
    assert 150 < labels["wrong"] < 250


@pytest.mark.parametrize(
    "equations",
    [
        ["5 * 3 = 16", "16 + 1 = 17"],  # bad sum
        ["5 * 4 = 20", "20 - 3 = 17"],  # 4 is not there
        ["5 * 3 = 15"],  # numbers left over
        ["5 * 3 = 15", "15 + 2 = 17", "17 + 0 = 17"],
        ["5 * 3 = 15", "15 - 2 = 13"],  # another target
        ["5 ^ 3 = 15", "15 + 2 = 17"],
        [],
    ],
)
def test_wrong_solutions_are_seen(equations: list[str]) -> None:
    assert not load("puzzles").is_solution(17, (3, 5, 2), equations)


def test_right_solution_in_any_operand_order() -> None:
    assert load("puzzles").is_solution(17, (3, 5, 2), ["3 * 5 = 15", "2 + 15 = 17"])
    assert load("puzzles").passes(17, (3, 5, 2), "3 * 5 = 15 (left: 2, 15)\n15 + 2 = 17 (left: 17)")


def test_held_out_puzzles_are_not_drawn_for_training() -> None:
    puzzles = load("puzzles")
    rng = random.Random(4)
    drawn = [puzzles.draw_puzzle(rng, 3) for _ in range(300)]
    assert not any(puzzles.held_out(*puzzle) for puzzle in drawn)
    assert puzzles.held_out(*puzzles.draw_puzzle(rng, 3, held=True))
    with pytest.raises(ValueError, match="never held out"):
        puzzles.draw_puzzle(rng, 2, held=True)


def test_puzzles_are_reproducible() -> None:
    puzzles = load("puzzles")
    one, two = random.Random(9), random.Random(9)
    assert [puzzles.draw_example(one) for _ in range(50)] == [puzzles.draw_example(two) for _ in range(50)]


def random_text(rng: random.Random) -> str:
    return bytes(rng.randrange(256) for _ in range(40)).decode("utf-8", "ignore") + chr(
        rng.randrange(0x20, 0xD7FF)
    )


def test_tokenizer_round_trips_any_text() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(ASSETS / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 4096
    rng = random.Random(0)
    for text in STRINGS + [random_text(rng) for _ in range(300)]:
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_words_have_the_same_tokens_in_text_and_json() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(ASSETS / "tokenizer.json"))
    value = tokenizer.encode("Cita Romántica 99").tokens
    text = tokenizer.encode("add to Cita Romántica 99.").tokens
    answer = tokenizer.encode('{"intent":"AddToPlaylist","playlist":"Cita Romántica 99"}').tokens
    assert text[4:-1] == value
    assert answer == ['{"intent":"', "AddToPlaylist", '","playlist":"', *value, '"}']


def test_all_bytes_are_tokens() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(ASSETS / "tokenizer.json"))
    assert set(tokenizers.pre_tokenizers.ByteLevel.alphabet()) <= set(tokenizer.get_vocab())


def test_assets_are_small_and_complete() -> None:
    files = {path.name: path.stat().st_size for path in ASSETS.iterdir() if path.is_file()}
    assert sum(files.values()) <= 16 * 2**20
    wanted = (
        "config.json model.safetensors tokenizer.json tokenizer_config.json generation_config.json README.md"
    )
    assert set(wanted.split()) <= set(files)
    assert json.loads((ASSETS / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


def test_transformers_reads_the_tokenizer_the_same_way() -> None:
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    fast = transformers.AutoTokenizer.from_pretrained(ASSETS)
    plain = tokenizers.Tokenizer.from_file(str(ASSETS / "tokenizer.json"))
    assert (fast.eos_token, fast.pad_token) == ("<|end|>", "<|pad|>")
    for text in STRINGS:
        assert fast.encode(text) == plain.encode(text).ids
        assert fast.decode(fast.encode(text), clean_up_tokenization_spaces=False) == text


def test_chat_template() -> None:
    transformers, formats = pytest.importorskip("transformers"), load("formats")
    jinja2 = pytest.importorskip("jinja2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(ASSETS)
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|system|>S<|end|><|user|>hi<|end|><|assistant|>" == formats.chat_prompt("hi", "S")
    messages.append({"role": "assistant", "content": "yo"})
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "<|system|>S<|end|><|user|>hi<|end|><|assistant|>yo<|end|>"
    with pytest.raises(jinja2.TemplateError, match="unknown role: tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_logits_agree_with_transformers() -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model, _ = load("evaluate").load_model(ASSETS)
    reference = transformers.AutoModelForCausalLM.from_pretrained(ASSETS, dtype=torch.float32).eval()
    ids = torch.randint(0, 4096, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, (logits, _) = reference(ids).logits, model(ids)
        _, cache = model(ids[:, :39])
        last, _ = model(ids[:, 39:], cache)
    assert (logits - expected).abs().max() < 1e-4
    assert (last[:, 0] - expected[:, 39]).abs().max() < 1e-4


@needs_snips
def test_batches_learn_from_answers_and_some_of_the_prompt() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    batches, augment, prepare = load("batches"), load("augment"), load("prepare")
    tokenizer = tokenizers.Tokenizer.from_file(str(ASSETS / "tokenizer.json"))
    rng, mix = random.Random(0), load("batches").Mix(puzzles=20, prompt_share=0.0, tokens=600)
    examples = batches.epoch(augment.Augmenter(prepare.read_rows(SNIPS)[:60]), tokenizer, mix, rng)
    assert len(examples) == 80
    found = list(batches.batches(examples, mix, rng))
    assert sum(len(batch.ids) for batch in found) == 80
    assert sum(len(batch.where) for batch in found) == sum(len(example.learned) for example in examples)
    for ids, where in found:
        assert ids.numel() <= 600 + ids.shape[1]
        learned = ids[:, 1:].flatten()[where]
        assert (learned == 1).sum() == len(ids) and not (learned == 0).any()  # one <|end|> a row, no padding
