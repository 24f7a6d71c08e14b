"""Lint: a program for each rule that breaks it, the same without the mistake, and the line of the finding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.frontend.inspect.findings import Finding
from tests.support.frontend_fake_backend import FakeBackend


def found(program: Any, rule: str, **kwargs: Any) -> list[str]:
    """Messages of a rule, each with the text of the line that it is about."""
    lines = Path(__file__).read_text().splitlines()
    findings = [finding for finding in program.lint(**kwargs) if finding.rule == rule]
    assert all(finding.line is not None and finding.file == __file__ for finding in findings)
    for finding in findings:
        assert "# here" in lines[finding.line - 1], f"{finding} is about {lines[finding.line - 1]!r}"
    return [f"{finding.level}: {finding.message}" for finding in findings]


@sgl.function
def clean(s: Any, question: str, examples: list[str]) -> Any:
    s += sgl.system("Be brief.")
    for example in examples:
        s += sgl.user(example) + sgl.assistant("ok")
    s += sgl.user(question)
    s += sgl.assistant("A:" + sgl.gen("a", max_tokens=20, regex="[a-z]+ [a-z]+", stop=" "))
    forks = s.fork(2)
    forks += sgl.user("Sure?") + sgl.assistant(sgl.select("sure", ["yes.", "no."]))
    forks.join()
    return s["a"], s["sure"]


def test_a_clean_program_has_no_findings_c13(backend: FakeBackend) -> None:
    findings = clean.lint(examples=["x", "y"])
    assert [finding.rule for finding in findings] == ["stop"], "every output of that regex has a blank"
    assert not backend.calls


def test_unknown_variable_c13() -> None:
    @sgl.function
    def program(s: Any) -> Any:
        s += "x" + sgl.gen("answer")
        s += "so " + s["anwser"]  # here
        return s["answer"]

    (message,) = found(program, "unknown-variable")
    assert message == "error: no variable 'anwser' was generated before it is read; there are: 'answer'"


def test_unread_variable_c13() -> None:
    @sgl.function
    def program(s: Any) -> Any:
        s += "x" + sgl.gen("read") + sgl.gen("unread")  # here
        return s["read"]

    assert found(program, "unread-variable") == ["info: the program does not read 'unread' itself"]


def test_duplicate_name_c13() -> None:
    @sgl.function
    def program(s: Any) -> Any:
        s += "x" + sgl.gen("a")
        s += "y" + sgl.gen("a")  # here
        s += s["a"]
        s += "z" + sgl.gen("a")
        for _ in range(3):
            s += "w" + sgl.gen("loop")
        return s["a"]

    (message,) = found(program, "duplicate-name")
    assert message.startswith("warning: 'a' is generated again; its value of line ") and message.endswith(
        "is lost"
    )


def test_names_of_called_programs_are_their_own() -> None:
    @sgl.function
    def inner(s: Any) -> Any:
        s += "in" + sgl.gen("a")
        return s["a"]

    @sgl.function
    def outer(s: Any) -> Any:
        s += "x" + sgl.gen("a")
        s.call(inner)
        s += inner()
        return s["a"]

    assert outer.lint() == []


def test_empty_prompt(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.gen("a")  # here

    assert found(program, "empty-prompt") == ["error: there is nothing before gen('a'); a run fails here"]
    assert program().error() is not None, "a run does"


def test_blank_before_gen() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "The answer is " + sgl.gen("a")  # here
        s += " and\n" + sgl.gen("b") + " or " + sgl.select("c", ["x", "y"])

    (message,) = found(program, "blank-before-gen")
    assert "the text before gen('a') ends with a blank" in message


def test_role_misuse_c13() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user("Hi")
        s += sgl.user("there" + sgl.gen("a"))  # here (twice)
        s += sgl.system("Be brief")  # here
        s += "outside"  # here
        s += sgl.assistant()  # here

    assert found(program, "role") == [
        "warning: two user messages follow one another; many chat templates refuse that",
        "warning: gen('a') is in a user message: the model speaks for somebody else",
        "warning: a system message comes after the user message; most chat templates want it first",
        "warning: 'outside' is outside of all messages, in a program that uses messages",
        "warning: the assistant message is empty",
    ]


def test_nested_roles_are_errors_with_their_line_c13() -> None:
    @sgl.function
    def program(s: Any) -> None:
        with s.user():
            s += "x"
            s += sgl.assistant("y")  # here

    (message,) = found(program, "role")
    assert message == "error: program: the assistant message cannot begin inside the user message"

    @sgl.function
    def ended(s: Any) -> None:
        s += sgl.user_end()  # here

    assert "there is no user message to end" in found(ended, "role")[0]


def test_choices_c13() -> None:
    @sgl.function
    def program(s: Any, options: list[str]) -> None:
        s += "x" + sgl.select("c", options)  # here

    assert not found(program, "choices", options=["yes", "no"])
    (message,) = found(program, "choices", options=["yes", "no", "yes, sir"])
    assert message.startswith("warning: 'yes' is the beginning of 'yes, sir'")
    assert found(program, "choices", options=["yes", " yes"]) == [
        "warning: 'yes' and ' yes' differ in blanks only"
    ]
    assert found(program, "choices", options=["yes"]) == ["warning: select('c') has only one choice"]
    assert "'a' is there twice" in found(program, "fails", options=["a", "a"])[0]


def test_unread_forks() -> None:
    @sgl.function
    def program(s: Any, how: str) -> Any:
        s += "x"
        forks = s.fork(2)  # here
        forks += sgl.gen("a")
        if how == "join":
            forks.join()
        return [fork["a"] for fork in forks] if how == "read" else None

    assert found(program, "unread-fork", how="nothing") == ["warning: the forks are neither joined nor read"]
    assert not found(program, "unread-fork", how="join") and not found(program, "unread-fork", how="read")


SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def test_a_constraint_that_cannot_end_in_time_c13() -> None:
    @sgl.function
    def program(s: Any, limit: int) -> None:
        s += "x" + sgl.gen("j", json_schema=SCHEMA, max_tokens=limit)  # here

    (message,) = found(program, "budget", limit=10)
    assert message == (
        "warning: gen('j'): a shortest output, '{\"name\":\"\"}', takes 11 bytes, but max_tokens=10;"
        " lint(backend=...) counts its tokens"
    )
    assert not found(program, "budget", limit=11)


def test_the_budget_is_counted_in_the_tokens_of_the_backend_c13() -> None:
    """With a vocabulary lint refuses what the engine refuses, and nothing else."""

    @sgl.function
    def program(s: Any, pattern: str, limit: int) -> None:
        s += "x" + sgl.gen("r", regex=pattern, max_tokens=limit)  # here

    with sgl.Runtime() as runtime:
        for pattern in ("[0-9]{6}", "(yes|no) please", "a{3}"):
            for limit in range(1, 10):
                refused = "takes" in str(program.run(pattern, limit, backend=runtime).error())
                messages = found(program, "budget", pattern=pattern, limit=limit, backend=runtime)
                assert bool(messages) == refused, (pattern, limit)
                assert all(f"tokens, but max_tokens={limit}" in message for message in messages)
        assert not found(program, "budget", pattern="[0-9]{6}", limit=64, backend=runtime)
    assert found(program, "budget", pattern="[0-9]{200}", limit=None), "the default of a run is 128"


def test_parameters_that_are_refused(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any, pattern: str = "a", top_p: float = 1.0, penalty: float = 0.0) -> None:
        s += "x" + sgl.gen("r", regex=pattern, top_p=top_p, frequency_penalty=penalty)  # here

    assert not found(program, "parameters")
    assert "error: gen('r'): " in found(program, "parameters", pattern="(a")[0]
    assert "top_p" in found(program, "parameters", top_p=3.0)[0]
    assert (
        "frequency_penalty=0.5 is not supported by FakeBackend yet"
        in found(program, "parameters", penalty=0.5)[0]
    )


def test_stop_strings_of_a_regex_c13() -> None:
    @sgl.function
    def program(s: Any, pattern: str, stop: Any) -> None:
        s += "x" + sgl.gen("r", regex=pattern, stop=stop, max_tokens=50)  # here

    never = "warning: gen('r'): the regex never allows the stop string '.'"
    always = "warning: gen('r'): every output of the regex contains the stop string '.', and is cut there"
    assert found(program, "stop", pattern=r"[0-9]+", stop=".") == [never]
    assert found(program, "stop", pattern=r"[0-9]+\.[0-9]", stop=["5", "."]) == [always]
    assert not found(program, "stop", pattern=r"[0-9.]+", stop=["5", "."])
    assert not found(program, "stop", pattern=r"(?i)[a-z]+\.", stop="x")
    assert not found(program, "stop", pattern=r".*")  # the stop is not known


def test_what_is_unknown_is_not_judged() -> None:
    @sgl.function
    def program(s: Any, limit: int, pattern: str) -> None:
        s += "x" + sgl.gen("r", regex=f"a{pattern}", max_tokens=limit, stop=["a", pattern])

    assert {finding.rule for finding in program.lint()} == {"unread-variable"}


def test_gen_in_a_string_c13() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x %s" % sgl.gen("a")  # noqa: UP031  # here

    (message,) = found(program, "gen-in-string")
    assert message == 'error: gen(...) cannot be made a string: add it, as in s += "..." + sgl.gen(...)'
    assert len(program.lint()) == 1, "the trace's own error at that line says nothing more"

    @sgl.function
    def working(s: Any) -> str:
        s += f"x{sgl.gen('f')}" + "{}".format(sgl.gen("g"))
        return str(s["f"] + s["g"])

    assert working.lint() == []


def test_dropped_expressions() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x"
        sgl.gen("a")  # here
        "text" + sgl.user("b")  # here
        sgl.gen_int("n")  # here
        s.user("c")

    assert [message[:40] for message in found(program, "dropped")] == [
        "warning: gen(...) does nothing unless it",
        "warning: user(...) does nothing unless i",
        "warning: gen_int(...) does nothing unles",
    ]


def test_unused_parameters() -> None:
    @sgl.function
    def program(
        s: Any,
        used: str,
        forgotten: str,  # here
        _ignored: str = "",
        *,
        also: int = 0,  # here
    ) -> None:
        s += used

    assert [message.split("'")[1] for message in found(program, "unused-parameter")] == ["forgotten", "also"]


def test_what_the_trace_does_not_reach_is_said_c13() -> None:
    @sgl.function
    def program(s: Any, hard: bool) -> None:
        s += "x"
        if hard:  # here
            s += s["nothing"]

    (message,) = found(program, "not-traced")
    assert (
        message.startswith("info: nothing after this was looked at") and "program.trace(hard=...)" in message
    )
    assert not found(program, "unknown-variable")
    assert not found(program, "not-traced", hard=False)


def test_errors_of_the_body() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x"
        {}["key"]  # here

    assert found(program, "fails") == ["error: KeyError: 'key'"]
    with pytest.raises(TypeError, match=r"program\(\): got an unexpected keyword argument"):
        program.lint(z=1)


def test_a_finding_is_a_line() -> None:
    finding = Finding("choices", "warning", "what", 7, "/a/b/program.py")
    assert str(finding) == "program.py:7: warning: what [choices]"
    assert str(Finding("choices", "info", "what")) == "info: what [choices]"


def test_programs_without_source() -> None:
    names: dict[str, Any] = {"sgl": sgl}
    exec("@sgl.function\ndef f(s, x):\n    s += sgl.gen('a')\n", names)
    assert [finding.rule for finding in names["f"].lint()] == ["empty-prompt", "unread-variable"]
