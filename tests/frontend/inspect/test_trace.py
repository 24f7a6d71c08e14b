"""Traces: the steps of a program, in order, without a model; unknown values can be moved about but not looked at."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import threading
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import ProgramError, TraceError
from sgl_like.frontend.inspect.trace import TraceNode
from sgl_like.frontend.inspect.unknown import Unknown
from tests.support.frontend_fake_backend import FakeBackend


def kinds(steps: list[TraceNode]) -> list[str]:
    return [step.kind for step in steps]


def test_steps_in_order_c13() -> None:
    """c#13: roles as calls and as contexts, gens, selects, scopes, reads."""

    @sgl.function
    def program(s: Any, question: str) -> str:
        s += sgl.system("Be brief.")
        with s.user():
            s += f"Question: {question}"
        with s.var_scope("turn"):
            s += sgl.assistant("A: " + sgl.gen("answer", max_tokens=8))
        s.user("Sure?")
        s += sgl.assistant(sgl.select("sure", ["yes", "no"]))
        return f"{s['answer']} ({s['sure']}), {s['turn']}"

    trace = program.trace()
    assert kinds(trace.nodes) == [
        *("role_begin", "text", "role_end"),
        *("role_begin", "text", "role_end"),
        *("begin_scope", "role_begin", "text", "gen", "role_end", "end_scope"),
        *("role_begin", "text", "role_end"),
        *("role_begin", "select", "role_end"),
        *("read", "read", "read"),
    ]
    texts = [step.text for step in trace.nodes if step.text]
    assert texts == ["Be brief.", "Question: {{question}}", "A: ", "{{answer}}", "Sure?", "{{sure}}"]
    assert set(trace.variables) == {"answer", "sure", "turn"}
    assert trace.ret_value.startswith("{{answer}} ({{sure}}), ") and "A: {{answer}}" in trace.ret_value
    lines = [step.line for step in trace.nodes]
    assert None not in lines and lines[3] == lines[5] == lines[4] - 1, (
        "the with statement, and the line in it"
    )


def test_sglang_names_a7() -> None:
    """Table a.7, and SGLang's test_bind_cache: bind().trace().last_node.print_graph_dfs()."""

    @sgl.function
    def program(s: Any, x: str, y: str = "z") -> None:
        s += "one " + x + sgl.gen("g") + y

    trace = program.bind(x="bound").trace()
    assert trace.last_node.print_graph_dfs().splitlines() == [
        "%0 = 'one bound'",
        "%1 = gen('g')  <- %0",
        "%2 = 'z'  <- %1",
    ]
    assert trace.variables["g"] is trace.nodes[1] and trace.ret_value is None
    assert dict(trace.arguments) == {"x": "bound", "y": "z"}


def test_forks_joins_and_copies() -> None:
    """a.7: SGLang's trace knows no join and no copy; child_states are there."""

    @sgl.function
    def program(s: Any) -> Any:
        s += "Two tips: " + sgl.gen("tips")
        forks = s.fork(2)
        for number, fork in enumerate(forks):
            fork += f"Tip {number}: " + sgl.gen("tip")
        forks.join()
        with s.copy() as aside:
            aside += "aside" + sgl.gen("aside")
        s += f"All: {s['tip'][0]}, {s['tip'][1]}" + sgl.gen("summary")
        return s["aside"]

    trace = program.trace()
    assert len(trace.child_states) == 3
    assert kinds(trace.child_states[1].nodes) == ["text", "gen"]
    join = next(step for step in trace.nodes if step.kind == "join")
    ends = [child.last_node for child in trace.child_states[:2]]
    assert all(end in join.sources for end in ends)
    said = next(step for step in trace.nodes if step.text.startswith("All"))
    assert said.text == "All: {{tip}}, {{tip}}"
    assert all(end in said.sources for end in ends), "text follows from what it contains"
    assert [str(value) for value in trace.ret_value] == ["{{aside}}"]
    numbers = [step.number for step in trace.walk()]
    assert numbers == list(range(len(numbers)))


def test_loops_over_data_are_seen_as_they_run() -> None:
    @sgl.function
    def few_shot(s: Any, examples: list[tuple[str, str]], question: str) -> None:
        for ask, answer in examples:
            s += sgl.user(ask) + sgl.assistant(answer)
        s += sgl.user(question) + sgl.assistant(sgl.gen("answer"))

    trace = few_shot.trace(examples=[("1+1", "2"), ("2+2", "4")])
    assert [step.text for step in trace.nodes if step.kind == "text"] == [
        "1+1",
        "2",
        "2+2",
        "4",
        "{{question}}",
    ]
    with pytest.raises(
        TraceError, match=r"examples is not known.*looped over.*few_shot\.trace\(examples=\.\.\.\)"
    ):
        few_shot.trace()


def test_several_outputs_are_a_list() -> None:
    @sgl.function
    def program(s: Any) -> str:
        s += "x" + sgl.gen("g", n=3)
        return " ".join(f"{value}" for value in s["g"])

    assert program.trace().ret_value == "{{g[0]}} {{g[1]}} {{g[2]}}"
    assert program.trace(values={"g": ["a", "b", "c"]}).ret_value == "a b c"


def test_text_of_the_state_can_be_read() -> None:
    @sgl.function
    def program(s: Any, topic: str) -> tuple[str, Any]:
        s += "plain"
        before = s.text()
        s += f" {topic}" + sgl.gen("g")
        with s.user():
            s += "said " + s["g"]
        return before, f"<{s.text()}> {s.messages()[0]['content']}"

    before, after = program.trace().ret_value
    assert before == "plain" and isinstance(before, str), "nothing unknown in it"
    assert after.startswith("<plain {{topic}}{{g}}") and after.endswith("said {{g}}")


BODIES: list[tuple[str, Any]] = [
    ("branched on", lambda v: "a" if v else "b"),
    ("compared with 'yes'", lambda v: v == "yes"),
    ("compared with 'yes'", lambda v: v != "yes"),
    ("compared with 3", lambda v: v > 3),
    ("made a number", lambda v: int(v)),
    ("made a number", lambda v: float(v)),
    ("made a number", lambda v: [1, 2][v]),
    ("computed with", lambda v: v * 2),
    ("computed with", lambda v: 2 - v),
    (r"\+ 1 was computed", lambda v: v + 1),
    ("looped over", lambda v: list(v)),
    ("length", lambda v: len(v)),
    ("'a' was looked for", lambda v: "a" in v),
    ("looked up", lambda v: {"a": 1}.get(v)),
    ("branched on", lambda v: v.strip() or "nothing"),
    ("looped over", lambda v: v.split(",")[0].partition("x").__iter__()),
]


@pytest.mark.parametrize(("said", "use"), BODIES, ids=[f"{said}-{at}" for at, (said, _) in enumerate(BODIES)])
def test_asking_an_unknown_value_is_a_clear_error(said: str, use: Any) -> None:
    @sgl.function
    def of_variable(s: Any) -> None:
        s += "x" + sgl.gen("v")
        use(s["v"])

    @sgl.function
    def of_argument(s: Any, v: str) -> None:
        use(v)

    with pytest.raises(
        TraceError, match=rf"line \d+.*{said}.*of_variable\.trace\(\.\.\., values=\{{'v'"
    ) as caught:
        of_variable.trace()
    assert caught.value.program == "of_variable" and caught.value.line is not None
    with pytest.raises(TraceError, match=rf"{said}.*of_argument\.trace\(v=\.\.\.\)"):
        of_argument.trace()


def test_given_values_decide() -> None:
    @sgl.function
    def program(s: Any, hard: bool) -> Any:
        s += "2+2=" + sgl.gen("sum")
        if hard and int(s["sum"]) == 4:
            s += " and " + sgl.gen("more")
        return s["sum"]

    trace = program.trace(hard=True, values={"sum": "4"})
    assert list(trace.variables) == ["sum", "more"] and trace.ret_value == "4"
    assert "more" not in program.trace(hard=True, values={"sum": "5"}).variables


def test_given_values_are_typed_as_in_a_run() -> None:
    @sgl.function
    def program(s: Any) -> Any:
        s += "2+2=" + sgl.gen("sum", json_schema=int)
        s += "!" * s["sum"].parsed
        return s.get_meta_info("sum")["finish_reason"]

    trace = program.trace(values={"sum": "4"})
    assert trace.nodes[-2].text == "!!!!"
    assert trace.ret_value == {"type": "stop"}
    with pytest.raises(TraceError, match=r"the value of sum\.parsed is not known"):
        program.trace()


def test_unknown_parameters_of_gens() -> None:
    @sgl.function
    def program(s: Any, limit: int, pattern: str, schema: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=limit, regex=pattern) + sgl.gen("b", json_schema=schema)

    gens = [step.node for step in program.trace().nodes if step.kind == "gen"]
    assert [{name: str(value) for name, value in gen.params.items()} for gen in gens] == [  # type: ignore[union-attr]
        {"max_new_tokens": "{{limit}}", "regex": "{{pattern}}"},
        {"json_schema": "{{schema}}"},
    ]


def test_an_iterator_gives_a_value_each_time() -> None:
    @sgl.function
    def program(s: Any) -> list[str]:
        said = []
        for _ in range(3):
            s += "x" + sgl.gen("g")
            said.append(s["g"])
        return said

    assert program.trace(values={"g": iter(["a", "b", "c"])}).ret_value == ["a", "b", "c"]
    assert program.trace(values={"g": "a"}).ret_value == ["a"] * 3
    with pytest.raises(
        TraceError, match=r"values\['g'\] has come to its end, but gen\('g'\) comes once more"
    ):
        program.trace(values={"g": iter(["a", "b"])})


def test_values_are_what_a_model_can_write() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("g") + sgl.select("c", ["a", "b"])

    with pytest.raises(TraceError, match=r"values\['c'\] is 'z', which is none of its choices"):
        program.trace(values={"c": "z"})
    with pytest.raises(TraceError, match=r"values\['g'\] must be text"):
        program.trace(values={"g": 4})


def test_what_python_itself_refuses_is_explained() -> None:
    @sgl.function
    def program(s: Any, names: str) -> None:
        s += ", ".join(["a", names])

    with pytest.raises(
        TraceError, match=r"the body raised TypeError: .*not known in this trace: names"
    ) as caught:
        program.trace()
    assert isinstance(caught.value.__cause__, TypeError)

    @sgl.function
    def broken(s: Any) -> None:
        raise KeyError("of the program")

    with pytest.raises(
        KeyError, match="of the program"
    ):  # nothing was unknown: it is the program's own error
        broken.trace()


def test_errors_of_the_program_are_the_same_as_in_a_run() -> None:
    @sgl.function
    def nested(s: Any) -> None:
        s += sgl.user(sgl.assistant("x"))

    @sgl.function
    def unread(s: Any) -> None:
        s["nothing"]

    with pytest.raises(ProgramError, match="the assistant message cannot begin inside the user message"):
        nested.trace()
    with pytest.raises(KeyError, match="no variable 'nothing'"):
        unread.trace()
    with pytest.raises(TypeError, match=r"unread\(\): got an unexpected keyword argument 'z'"):
        unread.trace(z=1)


def test_nothing_runs_and_nothing_runs_twice_b10(backend: FakeBackend) -> None:
    """b#10: a trace runs the body once, when it is asked for; a batch never runs it with placeholders."""
    ran: list[Any] = []
    table = {"a": "1", "b": "2", "c": "3"}

    @sgl.function
    def program(s: Any, key: str) -> None:
        ran.append(key)
        s += "value " + table[key] + sgl.gen("g")  # a placeholder would be a KeyError

    states = program.run_batch([{"key": key} for key in table])
    assert sorted(ran) == ["a", "b", "c"] and all(state.error() is None for state in states)
    ran.clear()
    backend.calls.clear()
    program.trace(key="a")
    assert ran == ["a"] and not backend.calls


def test_a_trace_is_of_its_own_thread_b11(backend: FakeBackend) -> None:
    """b#11: another thread that calls the program during a trace runs it."""
    tracing, ran = threading.Event(), threading.Event()
    others: list[Any] = []

    @sgl.function
    def inner(s: Any) -> None:
        s += "in" + sgl.gen("g")

    @sgl.function
    def outer(s: Any) -> None:
        tracing.set()
        assert ran.wait(20)
        s += "out"

    def other() -> None:
        assert tracing.wait(20)
        others.append(inner())
        ran.set()

    thread = threading.Thread(target=other)
    thread.start()
    outer.trace()
    thread.join()
    assert others[0]["g"] == "answer 1" and len(backend.calls) == 1


def test_traces_leave_no_threads_behind() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("g")

    for _ in range(20):
        program.trace()
    assert sum(thread.name == "sgl-DryBackend" for thread in threading.enumerate()) <= 1


def test_programs_called_in_the_body_are_traced_too(backend: FakeBackend) -> None:
    @sgl.function
    def expand(s: Any, tip: str) -> None:
        s += f"Expand {tip}: " + sgl.gen("detail")

    @sgl.function
    def tips(s: Any, topic: str) -> None:
        detail = expand(tip=topic)["detail"]
        s += "Detail: " + detail

    trace = tips.trace()
    assert not backend.calls, "nothing was run"
    assert [child.program for child in trace.child_states] == ["expand"]
    assert [step.text for step in trace.child_states[0].nodes if step.text] == [
        "Expand {{topic}}: ",
        "{{detail}}",
    ]
    assert trace.last_node.text == "Detail: {{detail}}"
    assert trace.child_states[0].nodes[1] in trace.last_node.sources


def test_programs_in_this_state_c16(backend: FakeBackend) -> None:
    """c#16: s.call and s += other(x) are traced where they run; expressions in f-strings are steps of their own."""

    @sgl.function
    def inner(s: Any, topic: str) -> str:
        s += f"About {topic}: {sgl.gen('detail', max_tokens=9)}."
        return f"({s['detail']})"

    @sgl.function
    def outer(s: Any, topic: str) -> Any:
        s += "Start " + sgl.gen("detail")
        said = s.call(inner, topic)
        s += inner(s["detail"])
        with s.user():
            s += f"{said.ret_value} {said['detail']} {s['inner.detail']}"
        return inner("alone")["detail"], inner("text").text()

    trace = outer.trace()
    assert not backend.calls
    programs = [(step.program, step.text) for step in trace.nodes if step.text]
    assert programs == [
        ("outer", "Start "),
        ("outer", "{{detail}}"),
        *(("outer > inner", text) for text in ("About {{topic}}: ", "{{inner.detail}}", ".")),
        *(("outer > inner", text) for text in ("About {{detail}}: ", "{{inner.detail}}", ".")),
        ("outer", "({{inner.detail}}) {{inner.detail}} {{inner.detail}}"),
    ]
    assert [step.label for step in trace.nodes if step.kind == "call"] == ["call inner()"] * 4
    assert set(trace.variables) == {"detail", "inner.detail"}
    alone, text = trace.ret_value
    assert str(alone) == "{{detail}}" and str(text) == "About text: {{detail}}."
    assert [child.program for child in trace.child_states] == ["inner", "inner"]
    assert (
        outer.render(topic="tea", values={"detail": "x", "inner.detail": "y"})
        == outer.run(
            topic="tea", backend=FakeBackend(lambda call: "y" if call.prompt.endswith(": ") else "x")
        ).text()
    )
    assert str(outer.graph()).splitlines()[:7] == [
        "outer(topic={{topic}})",
        "  'Start '",
        "  gen('detail')",
        "  call inner()",
        "    'About {{topic}}: '",
        "    gen('detail', max_tokens=9)",
        "    '.'",
    ]


def test_async_programs(backend: FakeBackend) -> None:
    @sgl.function
    async def inner(s: Any, x: str) -> str:
        s += f"in {x}" + sgl.gen("g")
        return f"<{await s.aget('g')}>"

    @sgl.function
    def plain(s: Any, x: str) -> None:
        s += f"plain {x}" + sgl.gen("p")

    @sgl.function
    async def outer(s: Any, x: str) -> Any:
        with s.user():
            s += x
        s += sgl.assistant(sgl.gen("a"))
        await s
        said = await inner.arun(await s.aget("a"))
        other = await plain.arun(x)
        s += f"{said.ret_value} {other['p']} {await s.atext()}"
        return (await s.amessages())[0]["content"]

    trace = outer.trace()
    assert str(trace.ret_value) == "{{x}}" and not backend.calls
    assert [child.program for child in trace.child_states] == ["inner", "plain"]
    text = next(step.text for step in reversed(trace.nodes) if step.text)
    assert text.startswith("<{{g}}> {{p}} ") and "{{a}}" in text

    @sgl.function
    async def branching(s: Any) -> None:
        s += "x" + sgl.gen("g")
        if await s.aget("g"):
            s += "y"

    with pytest.raises(TraceError, match="its truth was asked"):
        branching.trace()


def test_a_trace_can_be_made_anywhere(backend: FakeBackend) -> None:
    """In an event loop, and in an async body that a run has on our own loop."""

    @sgl.function
    async def inner(s: Any) -> None:
        s += "x" + sgl.gen("g")

    @sgl.function
    async def outer(s: Any) -> Any:
        return inner.trace().last_node.text

    async def main() -> Any:
        return inner.trace().last_node.text

    assert outer().ret_value == asyncio.run(main()) == "{{g}}"


def test_batches_in_a_body_are_not_run_by_a_trace(backend: FakeBackend) -> None:
    @sgl.function
    def inner(s: Any) -> None:
        s += "x" + sgl.gen("g")

    @sgl.function
    def outer(s: Any) -> None:
        inner.run_batch([{}, {}])

    with pytest.raises(TraceError, match="inner: only plain calls of programs can be traced"):
        outer.trace()
    assert not backend.calls


def test_tools_are_not_called_by_a_trace_b10(backend: FakeBackend) -> None:
    def dice(sides: int) -> int:
        """Throws a die."""
        raise AssertionError("called")

    @sgl.function
    def program(s: Any) -> Any:
        s += sgl.user("Throw a die.") + sgl.assistant(sgl.gen("a", tools=[dice], max_tokens=20))
        return s["a"]

    assert str(program.trace().ret_value) == "{{a}}" and not backend.calls
    assert program.trace(values={"a": "six"}).ret_value == "six"


def test_forks_can_be_mapped_and_kept() -> None:
    @sgl.function
    def inner(s: Any) -> None:
        s += "in" + sgl.gen("g")

    @sgl.function
    def program(s: Any) -> Any:
        s += "start"
        forks = s.fork(2)

        def think(fork: Any, word: str) -> str:
            fork += word + sgl.gen("thought", max_tokens=3)
            return f"{fork['thought']} {inner()['g']}"

        said = forks.map(think, ["one", "two"])
        forks.keep(1)
        s += " end"
        return [*said, s["thought"]]

    trace = program.trace()
    assert [str(value) for value in trace.ret_value] == ["{{thought}} {{g}}"] * 2 + ["{{thought}}"]
    assert program.render() == "starttwo{{thought}} end"


def test_images_are_steps_b35(tmp_path: Any) -> None:
    """b#35: print_graph_dfs of SGLang crashes on images."""
    path = tmp_path / "dot.bmp"
    path.write_bytes(b"BM" + bytes(60))

    @sgl.function
    def program(s: Any, name: str) -> None:
        s += sgl.user(sgl.image(str(path)) + f"Is this {name}?") + sgl.assistant(sgl.gen("g"))

    trace = program.trace()
    assert "image" in kinds(trace.nodes)
    assert "image(" in trace.last_node.print_graph_dfs()


def test_unknown_values_are_no_strings() -> None:
    """So nothing written in C takes a marker for the value."""

    @sgl.function
    def program(s: Any, row: Any) -> None:
        assert isinstance(row, Unknown) and not isinstance(row, str)
        for use in (json.loads, lambda value: re.search("a", value)):
            with pytest.raises(TypeError):
                use(row)
        s += f"{row.name:>4} {row['id']} {row.items()[1:3]} {row!s}" + " %s" % row  # noqa: UP031

    text = program.trace().last_node.text
    assert text == "{{row.name:>4}} {{row['id']}} {{row.items()[1:3]}} {{row}} {{row}}"


def test_traces_know_name_doc_and_types_b35() -> None:
    """b#35: programs keep their name, documentation and types."""

    @sgl.function
    def greet(s: Any, name: str, loud: bool = False) -> str:
        """Greets somebody."""
        s += "hello " + name
        return name

    bound = greet.bind(loud=True)
    for program in (greet, bound):
        assert program.signature == inspect.signature(program)
        assert program.__name__ == "greet" and program.__doc__ == "Greets somebody."
        assert str(inspect.signature(program)) == "(name: 'str', loud: 'bool' = False)"
        assert program.__wrapped__.__annotations__["name"] == "str"  # type: ignore[attr-defined]
