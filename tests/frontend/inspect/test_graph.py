"""The listing and the flowchart of a program."""

from __future__ import annotations

import re
from typing import Any

import sgl_like as sgl
from sgl_like.frontend.inspect.graph import _escaped


@sgl.function
def tips(s: Any, topic: str) -> Any:
    s += sgl.system("Be brief.")
    s += sgl.user(f"Tips on {topic}") + sgl.assistant("Sure: " + sgl.gen("tips", max_tokens=64, stop="\n"))
    forks = s.fork(2)
    for fork in forks:
        with fork.user():
            fork += "Expand."
        fork += sgl.assistant(sgl.select("kind", ["short", "long"]) + sgl.gen("text"))
    forks.join()
    s += sgl.user(f"Now all: {s['text'][1]}")
    return s["tips"]


def test_listing_c13() -> None:
    assert str(tips.graph()).splitlines() == [
        "tips(topic={{topic}})",
        "  system",
        "    'Be brief.'",
        "  user",
        "    'Tips on {{topic}}'",
        "  assistant",
        "    'Sure: '",
        "    gen('tips', max_tokens=64, stop='\\n')",
        "  fork(2)",
        *(
            line
            for number in range(2)
            for line in [
                f"    fork {number}:",
                "      user",
                "        'Expand.'",
                "      assistant",
                "        select('kind', ['short', 'long'])",
                "        gen('text')",
            ]
        ),
        "  join()",
        "  user",
        "    'Now all: {{text}}'",
        "  returns {{tips}}",
    ]


def test_long_texts_are_cut() -> None:
    text = tips.graph(topic="x" * 500)
    assert max(len(line) for line in str(text).splitlines()) < 90
    assert "…" in str(text) and "…" in text.mermaid()


def test_called_programs_and_scopes_are_indented() -> None:
    @sgl.function
    def inner(s: Any) -> None:
        s += "inside"

    @sgl.function
    def outer(s: Any) -> None:
        inner().sync()
        with s.var_scope("v"):
            s += "text"
        s += "after"

    assert str(outer.graph()).splitlines() == [
        "outer()",
        "  call inner()",
        "    inner:",
        "      'inside'",
        "  var_scope('v')",
        "    'text'",
        "  'after'",
    ]


def test_mermaid_has_every_step_and_only_arrows_between_them_c13() -> None:
    lines = tips.graph().mermaid().splitlines()
    assert lines[0] == "flowchart TD"
    boxes = {match[1] for line in lines if (match := re.match(r'\s+n(\d+)[\[({/\\]+".*"[\])}/\\]+$', line))}
    arrows = [match.groups() for line in lines if (match := re.match(r"  n(\d+) (-->|-\.->) n(\d+)$", line))]
    others = [line.strip().split("[")[0] for line in lines[1:] if not re.match(r" +n\d", line)]
    assert len(boxes) + len(arrows) + len(others) + 1 == len(lines), "there is nothing else"
    assert others == ["subgraph s10x0", "end", "subgraph s10x1", "end"]
    assert {end for start, _, end in arrows} | {"1"} == boxes, "all are reached"
    assert all(start in boxes for start, _, _ in arrows)
    drawn = [step for step in tips.trace().walk() if step.kind in ("text", "gen", "select", "fork", "join")]
    assert boxes == {str(step.number) for step in drawn}
    tip = next(step.number for step in drawn if step.name == "tips")
    said = drawn[-1].number
    assert (f"{tip}", "-->", f"{drawn[drawn.index(drawn[-1]) - 1].number}") not in arrows
    assert sum(end == str(said) and arrow == "-.->" for _, arrow, end in arrows) == 1, (
        "what the text contains"
    )


def test_text_cannot_break_out_of_a_label_c13() -> None:
    wild = '"];\nclick n1 "javascript:alert(1)" <b>&amp;`# {{x}} |y| %% *b* _c_ \\ \x00 \ue000 1. list'

    @sgl.function
    def program(s: Any) -> None:
        s += wild + sgl.gen('na"me];', stop='"')
        s.fork(1)

    chart = program.graph().mermaid()
    labels = re.findall(r'"([^"]*)"', chart)
    assert len(labels) == chart.count('"') / 2
    assert not any(
        set('"<>&`{}[]()|*\\%;\n').difference("\n") & set(re.sub(r"#\d+;", "", label)) for label in labels
    )
    assert all(line.startswith(("flowchart", "  n", "  s", "  end", "    ")) for line in chart.splitlines())
    assert "click" not in re.sub(r'"[^"]*"', "", chart)


def test_escaping_can_be_undone() -> None:
    text = 'a "b" <c> #d; {e} ü 漢 1. x'
    assert re.sub(r"#(\d+);", lambda match: chr(int(match[1])), _escaped(text)) == text
