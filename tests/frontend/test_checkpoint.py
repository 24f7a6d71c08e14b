"""run_batch with a checkpoint: exactly what is missing is run, and what is there is read as if it had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any, Literal

import pydantic
import pytest

import sgl_like as sgl
from sgl_like.errors import DataError, EngineError, OutputError, ProgramError
from sgl_like.frontend.batches import journal
from tests.support.frontend_fake_backend import Call, FakeBackend

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


def make_program(ran: list[Any]) -> Any:
    @sgl.function
    def talk(s: Any, word: str, extra: Any = None) -> Any:
        ran.append(word)
        s += sgl.system("Be brief.")
        s += sgl.user(f"say {word}")
        s += sgl.assistant(sgl.gen("said") + " or " + sgl.select("choice", ["$yes", "no"]))
        s += sgl.gen(n=2)
        forks = s.fork(2)
        forks += sgl.gen("forked")
        forks.join()
        s["mine"] = {"word": word, 1: (2.5, None, float("inf"))}
        if word == "raise":
            raise LookupError("mine")
        return word, len(word)

    return talk


def everything(state: sgl.ProgramState) -> Any:
    """All that can be read."""
    names = ("said", "choice", None, "forked", "mine")
    meta = [state.get_meta_info(name) for name in names]
    for each in meta:
        for one in [each, *(each or {}).get("samples", [])]:
            if one is not None:
                one.pop("id", None)
    values = [state[name] for name in names]
    streams = ["".join(state.text_iter(name)) for name in names]
    rest = (state.text(), state.messages(), state.usage, state.ret_value, state.error(), state.row)
    return [values, meta, streams, "".join(state.text_iter()), repr(state), rest]


def echo(call: Call) -> str | Exception:
    return EngineError("boom") if "bad" in call.prompt else f"<{len(call.prompt)}>"


@pytest.fixture
def echoing(backend: FakeBackend) -> FakeBackend:
    backend._respond = echo
    return backend


WORDS = ["one", "안녕 👋🏽", "", "\ud83d"]


def test_restored_states_are_read_like_finished_ones(echoing: FakeBackend, path: Path) -> None:
    """c#4."""
    ran: list[str] = []
    rows = [(word,) for word in WORDS]
    plain = make_program(ran).run_batch(rows)
    first = make_program(ran).run_batch(rows, checkpoint=path)
    assert len(ran) == 8 and len(lines(path)) == 4
    calls = len(echoing.calls)
    second = make_program(ran).run_batch([{"word": word} for word in WORDS], checkpoint=str(path))
    assert len(ran) == 8 and len(echoing.calls) == calls, "nothing is run, and no request is sent"
    for states in (first, second):
        assert [everything(state) for state in states] == [everything(state) for state in plain]
    assert type(second[0].ret_value) is tuple
    with pytest.raises(ProgramError, match="the program has ended"):
        second[0].__iadd__("more")
    with pytest.raises(ProgramError, match="no variable 'other'"):
        _ = second[0]["other"]
    assert len(lines(path)) == 4


def test_rows_that_failed_are_run_again(echoing: FakeBackend, path: Path) -> None:
    ran: list[str] = []
    rows = [("one",), ("bad",), ("raise",), ("two",)]
    for _ in range(2):
        states = make_program(ran).run_batch(rows, checkpoint=path)
        assert [state.error() is None for state in states] == [True, False, False, True]
    assert sorted(ran) == ["bad", "bad", "one", "raise", "raise", "two"]
    errors = [line["error"] for line in lines(path) if line["row"] == 2]
    assert len(errors) == 2 and "LookupError: mine" in errors[0]
    echoing._respond = lambda call: "fine"
    states = make_program(ran).run_batch(rows, checkpoint=path)
    assert states[1]["said"] == "fine" and states[0]["said"] != "fine"
    assert ran[6:] == ["bad", "raise"] or ran[6:] == ["raise", "bad"]
    states = make_program(ran).run_batch(rows[:2], checkpoint=path)
    assert states[1]["said"] == "fine" and len(ran) == 8


def test_a_cut_at_any_byte(echoing: FakeBackend, path: Path) -> None:
    rows = [(word,) for word in WORDS]
    before = [everything(state) for state in make_program([]).run_batch(rows, checkpoint=path, num_threads=1)]
    whole = path.read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == 10]
    for length in {*range(0, len(whole), 97), *(end + shift for end in ends for shift in (-2, -1, 0))}:
        path.write_bytes(whole[:length])
        ran: list[str] = []
        states = make_program(ran).run_batch(rows, checkpoint=path, num_threads=1)
        assert [everything(state) for state in states] == before
        assert ran == WORDS[sum(end <= length for end in ends) :]
        assert len(lines(path)) == 4


def test_rows_in_any_order_with_any_options(echoing: FakeBackend, path: Path) -> None:
    ran: list[str] = []
    words = [f"w{i}" for i in range(60)]
    states = make_program(ran).run_batch(
        ((word,) for word in words), checkpoint=path, generator_style=True, as_completed=True, num_threads=7
    )
    taken = [next(states).row for _ in range(10)]
    states.close()
    kept = {line["row"] for line in lines(path) if line["error"] is None}
    assert set(taken) <= kept and len(kept) < 60
    ran.clear()
    again = make_program(ran).run_batch([(word,) for word in words], checkpoint=path, as_completed=True)
    assert sorted(ran) == sorted(word for i, word in enumerate(words) if i not in kept)
    assert sorted(state.row for state in again) == list(range(60))
    assert all(state["mine"]["word"] == words[state.row] for state in again)


class Point(pydantic.BaseModel):
    x: int


def test_restored_outputs_have_their_types(echoing: FakeBackend, path: Path) -> None:
    """c#5: `GenText` from a checkpoint is what it was."""

    class Local(Point):
        pass

    types = [Point, list[Point], Point | None, dict[str, int], Literal["a", 1], tuple[int, ...], {}, Any]
    texts = ['{"x": 1}', '[{"x": 1}]', "null", '{"a": 1}', '"a"', "[1, 2]", "5", "5"]

    @sgl.function
    def typed(s: Any, i: int) -> None:
        for number, each in enumerate(types[:-1]):
            s += f"\n{number}:" + sgl.gen(f"t{number}", json_schema=each)
        s += "\n7:" + sgl.gen("local", json_schema=Local) + "\n6:" + sgl.gen("b", n=2)
        with s.copy() as t:
            t += "\n6:" + sgl.gen("c", dtype=int)

    answers = {**{f"{i}:": text for i, text in enumerate(texts)}, "7:": '{"x": 2}'}
    echoing._respond = lambda call: answers[call.prompt.rsplit("\n")[-1]]
    live = typed.run_batch([(1,)], checkpoint=path)[0]
    calls = len(echoing.calls)
    state = typed.run_batch([(1,)], checkpoint=path)[0]
    assert len(echoing.calls) == calls
    names = [f"t{number}" for number in range(len(types) - 1)]
    for before, after in [
        *((live[name], state[name]) for name in (*names, "local")),
        *zip([*live["b"], *live["c"]], [*state["b"], *state["c"]], strict=True),
    ]:
        assert type(after) is sgl.GenText and after == before
        assert (after.token_ids, after.meta) == (before.token_ids, before.meta)
    values = [state[name].parsed for name in names]
    assert values == [Point(x=1), [Point(x=1)], None, {"a": 1}, "a", (1, 2), 5]
    assert values == [live[name].parsed for name in names] and state["c"][0].parsed == 5
    assert ["".join(state.text_iter("b", index=i)) for i in range(2)] == ["5", "5"]
    assert live["local"].parsed == Local(x=2)
    with pytest.raises(OutputError, match="'local' comes from a checkpoint, and is there as text only"):
        _ = state["local"].parsed
    with pytest.raises(OutputError, match="nothing to parse"):
        _ = state["b"][0].parsed


def test_what_is_not_plain_is_an_error_where_it_is_read(echoing: FakeBackend, path: Path) -> None:
    @sgl.function
    def odd(s: Any, i: int) -> object:
        s += "x" + sgl.gen("a")
        s["thing"] = object()
        return object()

    live = odd.run_batch([(1,)], checkpoint=path)[0]
    assert live["thing"] is not None and live.ret_value is not None
    state = odd.run_batch([(1,)], checkpoint=path)[0]
    assert state["a"] == live["a"] and state.error() is None
    with pytest.raises(
        ProgramError, match="the value of 'thing' is not in the checkpoint: object is no plain data"
    ):
        _ = state["thing"]
    with pytest.raises(
        ProgramError, match="what the body returned is not in the checkpoint: object is no plain data"
    ):
        _ = state.ret_value
    with pytest.raises(DataError, match="row 0: object is no plain data"):
        odd.run_batch([(object(),)], checkpoint=path.with_name("y.jsonl"))


def test_another_row(echoing: FakeBackend, path: Path) -> None:
    make_program([]).run_batch([("a",), ("b",)], checkpoint=path)
    before = path.read_bytes()
    for rows in ([("a",), ("c",)], [("a",), ("b", 1)]):
        with pytest.raises(
            DataError, match=r"row 1 is another one than when .*x\.jsonl was written; use another"
        ):
            make_program([]).run_batch(rows, checkpoint=path)
    assert path.read_bytes() == before
    assert len(make_program([]).run_batch([("a",), ("b",), ("c",)], checkpoint=path)) == 3


def test_programs_in_programs(echoing: FakeBackend, path: Path) -> None:
    @sgl.function
    def inner(s: Any, x: int) -> int:
        s += f"inner {x}" + sgl.gen("a")
        return x

    @sgl.function
    def outer(s: Any, x: int) -> int:
        s += "outer" + sgl.gen("a")
        return int(s.call(inner, x).ret_value)

    live = outer.run_batch([(1,)], checkpoint=path)[0]
    state = outer.run_batch([(1,)], checkpoint=path)[0]
    assert live["a"] != live["inner.a"]
    assert [state["a"], state["inner.a"]] == [live["a"], live["inner.a"]]


def test_a_body_that_changes_its_arguments(echoing: FakeBackend, path: Path) -> None:
    @sgl.function
    def greedy(s: Any, words: list[str]) -> int:
        words.append("more")
        s += "x" + sgl.gen("a")
        return len(words)

    for _ in range(2):
        assert greedy.run_batch([{"words": ["a", "b"]}], checkpoint=path)[0].ret_value == 3
    assert len(lines(path)) == 1


def other_program() -> Any:
    @sgl.function
    def talk(s: Any, word: str, extra: Any = None) -> None:
        s += "something else" + sgl.gen("said")

    return talk


def other_default() -> Any:
    program = make_program([])
    program.func.__defaults__ = (1,)
    return program


TEXT = "prompt"


@sgl.function
def names_a_text(s: Any, word: str) -> None:
    s += TEXT + sgl.gen("said")


@pytest.mark.parametrize(
    ("change", "options", "named"),
    [
        (other_program, {}, "program"), (lambda: make_program([]).bind(extra=3), {}, "bound"),
        (other_default, {}, "defaults"), (lambda: make_program([]), {"temperature": 0}, "sampling"),
        (lambda: make_program([]), {"backend": "other"}, "model"),
    ],
)  # fmt: skip
def test_another_program_or_other_options(
    echoing: FakeBackend, path: Path, change: Callable[[], Any], options: dict[str, Any], named: str
) -> None:
    class Other(FakeBackend):
        model_name = "other"

    make_program([]).run_batch([("a",)], checkpoint=path)
    if "backend" in options:
        options = {"backend": Other(echo)}
    with pytest.raises(DataError, match=f"begun with another {named} "):
        change().run_batch([("a",)], checkpoint=path, **options)
    assert len(make_program([]).run_batch([("a",)], checkpoint=path, num_threads=3)) == 1


def test_another_code_or_text(echoing: FakeBackend, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(source: str) -> Any:
        scope: dict[str, Any] = {"sgl": sgl}
        exec(source, scope)
        return sgl.function(scope["f"])

    body = "def f(s, word):\n    s += word + sgl.gen('a')\n"
    compiled(body).run_batch([("a",)], checkpoint=path)
    commented = body.replace("\n", "  # a comment\n", 1)
    compiled(commented).run_batch([("a",)], checkpoint=path)
    assert len(lines(path)) == 1
    for other in (body.replace("'a'", "'b'"), body.replace("+ sgl", "+ 'x' + sgl")):
        with pytest.raises(DataError, match="begun with another code"):
            compiled(other).run_batch([("a",)], checkpoint=path)

    path = path.with_name("y.jsonl")
    names_a_text.run_batch([("a",)], checkpoint=path)
    monkeypatch.setattr(sys.modules[__name__], "TEXT", "another prompt")
    with pytest.raises(DataError, match="begun with another constants"):
        names_a_text.run_batch([("a",)], checkpoint=path)


def test_foreign_files(echoing: FakeBackend, path: Path) -> None:
    path.write_text("precious\n")
    with pytest.raises(DataError, match="exists and is no checkpoint of run_batch"):
        make_program([]).run_batch([("a",)], checkpoint=path)
    assert path.read_text() == "precious\n"
    with pytest.raises(DataError, match="there is no folder"):
        make_program([]).run_batch([("a",)], checkpoint=path / "y")

    path.unlink()
    make_program([]).run_batch([("a",)], checkpoint=path)
    good = path.read_bytes()
    for line in ("1", "{}", '{"row": "a", "error": null}', '{"row": 1}', "\x00"):
        path.write_bytes(good + line.encode() + b"\n")
        with pytest.raises(DataError, match=r"x\.jsonl:2: not a line that sgl-like wrote"):
            make_program([]).run_batch([("a",)], checkpoint=path)
    record = json.loads(good)
    for name in ("variables", "usage", "messages", "digest"):
        path.write_text(json.dumps({**record, name: None}) + "\n")
        with pytest.raises(DataError, match="row 0"):
            make_program([]).run_batch([("a",)], checkpoint=path)


def test_two_runs_on_one_checkpoint(echoing: FakeBackend, path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    make_program([]).run_batch([("a",)], checkpoint=path)
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another run is writing to it"):
            make_program([]).run_batch([("a",)], checkpoint=path)


def test_nothing_is_left_of_an_empty_batch(echoing: FakeBackend, path: Path) -> None:
    assert make_program([]).run_batch([], checkpoint=path) == []
    assert list(make_program([]).run_batch([], checkpoint=path, generator_style=True)) == []
    assert list(path.parent.iterdir()) == []


def test_a_full_disk_ends_the_batch(
    echoing: FakeBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a line, and then nothing, also by other threads: what is on disk can be resumed."""
    rows = [(f"w{i}",) for i in range(20)]
    room = [3000]

    class Small(FileIO):
        def write(self, data: Any) -> int:
            if not room[0]:
                raise OSError(28, "No space left on device")
            size = min(room[0], len(data))
            room[0] -= size
            return super().write(bytes(data[:size]))

    monkeypatch.setattr(journal, "FileIO", Small)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        make_program([]).run_batch(rows, checkpoint=path, num_threads=8)
    assert path.stat().st_size == 3000
    whole = path.read_bytes().count(b"\n")
    room[0] = 10**9
    ran: list[str] = []
    assert all(state.error() is None for state in make_program(ran).run_batch(rows, checkpoint=path))
    assert len(ran) == 20 - whole


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_loses_nothing(echoing: FakeBackend, path: Path) -> None:
    """What has ended is kept, also where it waits behind a row that has not."""
    main = threading.main_thread().ident
    assert main is not None

    interrupts = iter([signal.SIGINT])

    @sgl.function
    def say(s: Any, i: int) -> int:
        s += f"say {i}:" + sgl.gen("a")
        if i == 5:
            for interrupt in interrupts:
                signal.pthread_kill(main, interrupt)
        return i

    echoing.hold(lambda call: "say 0:" in call.prompt)
    with pytest.raises(KeyboardInterrupt):
        say.run_batch([(i,) for i in range(6)], checkpoint=path, num_threads=2)
    assert {line["row"] for line in lines(path)} >= {1, 2, 3, 4}
    assert 0 not in {line["row"] for line in lines(path)}, "what was cancelled has not ended"
    echoing.release()
    assert [state.ret_value for state in say.run_batch([(i,) for i in range(6)], checkpoint=path)] == [
        *range(6)
    ]


KILLS_ITSELF = """
import json, os, signal, sys
from io import FileIO
import sgl_like as sgl
from sgl_like.frontend.batches import journal
from tests.support.frontend_fake_backend import FakeBackend

where, n, threads, log = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), open(sys.argv[4], "a", buffering=1)

class Torn(FileIO):
    left = n
    def write(self, data):
        if Torn.left == 0:
            super().write(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        Torn.left -= 1
        return super().write(data)

if where == "within":
    journal.FileIO = Torn

@sgl.function
def say(s, i):
    if where == "between" and i == n:
        os.kill(os.getpid(), signal.SIGKILL)
    s += f"say {i}" + sgl.gen("said") + sgl.select("c", ["x", "yy"])
    s["square"] = i * i
    log.write(f"{i}\\n")
    return (i, s["said"])

backend = FakeBackend(lambda call: f"<{call.prompt}>")
states = say.run_batch(
    ({"i": i} for i in range(100)), backend=backend, checkpoint="x.jsonl", num_threads=threads, seed=7
)
accidental = ("id", "output_ids")  # the fake backend numbers words as they come
meta = [{k: v for k, v in s.get_meta_info("said").items() if k not in accidental} for s in states]
print(json.dumps([[s.text(), s["said"], s["c"], s["square"], s.ret_value] for s in states] + meta))
"""


def run(folder: Path, where: str, n: int, threads: int) -> tuple[int, str, list[int]]:
    """Exit code, output, and which rows were executed."""
    log = folder / "log"
    log.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", KILLS_ITSELF, where, str(n), str(threads), str(log)],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout, [int(line) for line in log.read_text().split()]


def test_killed_at_row_37_of_100(tmp_path: Path) -> None:
    """c#4: the rerun executes exactly the 63 rows that are missing, and gives what an undisturbed run gives."""
    (tmp_path / "whole").mkdir()
    code, expected, executed = run(tmp_path / "whole", "nowhere", 0, 4)
    assert code == 0 and sorted(executed) == list(range(100))

    code, _, executed = run(tmp_path, "between", 37, 1)
    assert code == -signal.SIGKILL and executed == list(range(37))
    code, output, executed = run(tmp_path, "nowhere", 0, 1)
    assert code == 0 and executed == list(range(37, 100))
    assert output == expected


def test_killed_in_the_middle_of_a_line(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    expected = run(tmp_path / "whole", "nowhere", 0, 4)[1]
    assert run(tmp_path, "within", 20, 8)[0] == run(tmp_path, "within", 10, 8)[0] == -signal.SIGKILL
    text = (tmp_path / "x.jsonl").read_text()
    assert text.count("\n") == 30 and not text.endswith("\n")
    kept = {json.loads(line)["row"] for line in text.split("\n")[:-1]}
    code, output, executed = run(tmp_path, "nowhere", 0, 8)
    assert code == 0 and output == expected
    assert sorted(executed) == sorted(set(range(100)) - kept)
