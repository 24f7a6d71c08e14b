"""c#20: runs in a terminal, in a notebook and on a page: every token once, told apart, and nothing in them acts."""

from __future__ import annotations

import hashlib
import io
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import sgl_like as sgl
from sgl_like.cli.main import app
from sgl_like.frontend.view.format import (
    KINDS,
    Alternative,
    Branch,
    Choice,
    Failure,
    Fork,
    Part,
    Refused,
    Token,
    Trace,
)
from sgl_like.frontend.view.html import fragment, page
from sgl_like.frontend.view.terminal import show
from sgl_like.frontend.view.visible import visible
from tests.support.frontend_fake_backend import FakeBackend

HOSTILE = [
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "&amp; &lt;", '" onmouseover="x', "' x='",
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b2J", "a\rb", "\x00", "\u202egnp.exe", "\ud800\udfff", "\ufeff\u200b",
    "[bold]rich[/bold]", "[link=http://x]y[/link]", "--></style><style>*{display:none}", "\u2028\u2029", "]]>",
]  # fmt: skip
ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Page(HTMLParser):
    """Elements with their classes, the text directly in them, and what could load or run anything."""

    VOID = frozenset({"meta", "br", "img", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[list[Any]] = []
        self.elements: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(text)
        self.close()
        assert not self.stack, f"never closed: {[tag for tag, *_ in self.stack]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.stack.append([tag, dict(attrs), ""])
        if tag in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        opened, attrs, text = self.stack.pop()
        assert opened == tag, f"</{tag}> ends <{opened}>"
        self.elements.append((tag, attrs, text))
        inherits = {"ctl", "bytes", "cut"} & set((attrs.get("class") or "").split())
        if self.stack and inherits:
            self.stack[-1][2] += text

    def handle_data(self, data: str) -> None:
        if self.stack:
            self.stack[-1][2] += data

    def texts(self, kind: str) -> list[str]:
        """Of each token of a kind, without those of the legend."""
        found = [
            text for _, attrs, text in self.elements if {"t", kind} <= set((attrs.get("class") or "").split())
        ]
        return (
            found[1:] if kind != "sampled" else found[5:]
        )  # the legend comes first, the scale of probabilities too


def sample(text: str = "4 ", forced: str = '", "') -> Trace:
    """A trace with something of everything, and `text` wherever text may come from somebody else."""
    top = [Alternative(text, -0.1, 7), Alternative(text, -3.0, 8)]
    gen = Part(
        "gen", text + forced,
        [Token(text, "sampled", 7, -0.1, top), Token(forced, "forced", 5), Token(text, "sampled", 2, cut=len(text))],
        role="assistant", message=1, name=text, params={"regex": text, "json_schema": {text: text}},
        finish={"type": "stop", "matched": text}, usage={"prompt_tokens": 1, "completion_tokens": 3},
        others=[Part("gen", text, [Token(text, "sampled", 7)])], refused=[Refused(text, f"not {text}")],
    )  # fmt: skip
    select = Part("select", text, [Token(text, "selected", 9)], name=text, usage={"prompt_tokens": 1},
                  choices=[Choice(text, 0.75), Choice("other", 0.25)])  # fmt: skip
    error = Failure(text, "gen('x')")
    parts: list[Part | Fork] = [
        Part("text", text, [Token(text, "cached", 1)], role=text, message=0, markup=True),
        Part("text", text, None, role="assistant", message=1),
        gen,
        Fork(
            [Branch([select]), Branch([Part("gen", text, None, name=text, broken=True)], error=error)],
            join=text,
        ),
    ]
    return Trace(text, text, Branch(parts, {"prompt_tokens": 10}, error, running=True))


@sgl.function
def program(s: Any, text: str = "2+2=") -> None:
    s += sgl.user(text) + sgl.assistant(sgl.gen("a"))
    forks = s.fork(2)
    forks += lambda i: f"fork {i}: " + sgl.gen("b")
    forks.join()


def rendered(trace: Trace, width: int = 100, probabilities: bool = False, **options: Any) -> str:
    out = io.StringIO()
    show([trace], Console(file=out, width=width, **options), probabilities)
    return out.getvalue()


COLOURS: dict[str, Any] = {"force_terminal": True, "color_system": "truecolor"}


# -- HTML -----------------------------------------------------------------------------------------------------------


def test_every_generated_token_is_there_once() -> None:
    trace = Trace.from_json(program.run(backend=FakeBackend(lambda call: f"say {len(call.prompt)}!")).trace())
    found = Page(page([trace]))

    def tokens(branch: Branch) -> Iterator[Token]:
        for part in branch.parts:
            if isinstance(part, Fork):
                for child in part.branches:
                    yield from tokens(child)
            elif part.type == "gen":
                yield from part.tokens or ()

    expected = [token.text for token in tokens(trace.run)]
    assert expected and found.texts("sampled") == expected


def test_kinds_are_classes_and_explained() -> None:
    found = Page(page([sample()]))
    assert found.texts("sampled") == [
        "4 ",
        "4 ",
        "4 ",
        "4 ",
    ]  # of the gen with a cut one, its other output, the broken
    assert found.texts("forced") == ['", "'] and found.texts("cached") == ["4 "]
    assert found.texts("selected") == ["4 "]
    legend = [text for tag, attrs, text in found.elements if attrs.get("class") == "t healed"]
    assert legend == ["healed"]
    text = page([sample()])
    assert all(meaning in text for meaning in KINDS.values())


def test_probabilities_and_alternatives_are_shown_on_focus() -> None:
    found = Page(page([sample("yes")]))
    focusable = [attrs for _, attrs, _ in found.elements if "tabindex" in attrs]
    assert focusable and all(attrs["tabindex"] == "0" for attrs in focusable)
    assert "probability 90.5% (log -0.100)" in page([sample("yes")])
    cells = [text for tag, attrs, text in found.elements if tag == "td" and attrs.get("class") == "alt"]
    assert cells == ["yes", "yes", "yes", "other"]
    meters = [attrs["value"] for tag, attrs, _ in found.elements if tag == "meter"]
    assert meters == ["0.9048", "0.0498", "0.7500", "0.2500"]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_text_is_only_text(text: str) -> None:
    for html in (page([sample(text)]), fragment([sample(text)])):
        html.encode("utf-8")
        assert not ACTING.search(html)
        found = Page(html)
        tags = {tag for tag, _, _ in found.elements}
        assert not tags & {"script", "img", "link", "iframe", "object", "base", "form"}
        assert sum(tag == "style" for tag, _, _ in found.elements) == 1
        for _, attrs, _ in found.elements:
            assert not any(name.startswith("on") or name in ("style", "src") for name in attrs)
            assert (attrs.get("href") or "#").startswith("#")
        assert found.texts("sampled")[0].replace("↵", "") == visible(text)


def test_the_policy_allows_the_style_and_nothing_else() -> None:
    html = page([sample()])
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in html
    assert "url(" not in style and "@import" not in style and "://" not in html


def test_links_lead_somewhere_and_ids_are_unique() -> None:
    found = Page(page([sample(), sample()]))
    ids = [attrs["id"] for _, attrs, _ in found.elements if "id" in attrs]
    links = [(attrs["href"] or "")[1:] for _, attrs, _ in found.elements if "href" in attrs]
    assert len(ids) == len(set(ids)) and {"t1", "t2"} <= set(links) <= set(ids)


def test_roles_forks_errors_and_usage() -> None:
    html = page([sample("x")])
    assert html.count('<section class="branch">') == 2 and "fork 1 <" in html and "joined: x" in html
    assert html.count('class="error"') == 2 and "still running" in html
    assert '<div class="role">assistant</div>' in html and "10 prompt" in html
    assert "1 other output<" in html and "1 refused output<" in html and "not x" in html


def test_a_state_in_a_notebook_does_not_wait() -> None:
    backend = FakeBackend(lambda call: "done")
    backend.hold()
    state = program.run(backend=backend, stream=True)
    backend.wait_for_calls(1)
    assert "still running" in state._repr_html_()
    backend.release()
    state.sync()
    one, two = state._repr_html_(), state._repr_html_()
    assert "still running" not in one and Page(one).texts("sampled")[0] == "d"
    ids = set(re.findall(' id="([^"]+)"', one)) & set(re.findall(' id="([^"]+)"', two))
    assert not ids  # both can be in one notebook


# -- terminal -------------------------------------------------------------------------------------------------------


def test_without_colours_the_kind_is_written() -> None:
    for options in ({}, {"force_terminal": True, "no_color": True}):
        lines = [
            line.split(None, 1) for line in rendered(sample("4"), **options).splitlines() if line.strip()
        ]
        assert ["cached", "4"] in [[word.strip() for word in line] for line in lines]
        text = rendered(sample("4"), **options)
        assert re.search(r"^ *sampled \(4\) +4 *$", text, re.MULTILINE)
        assert re.search(r'^ *forced \(4\) +", " *$', text, re.MULTILINE)
        assert re.search(r"^ *sampled \(4\), cut off +4 *$", text, re.MULTILINE)
        assert "error: 4" in text and "joined: 4" in text and "still running" in text
        assert "other outputs of 4:" in text and "refused output of 4: 4 (not 4)" in text


@pytest.mark.parametrize(
    "environment", [{"NO_COLOR": "1", "FORCE_COLOR": "1"}, {"TERM": "dumb", "FORCE_COLOR": "1"}]
)
def test_the_environment_is_heeded(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TERM", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    program.run(backend=FakeBackend(lambda call: "four")).show()
    out = capsys.readouterr().out
    assert re.search(r"sampled \(a\)\S* +four", re.sub("\x1b\\[[0-9;]*m", "", out))
    assert not re.search("\x1b\\[[0-9;]*(3[0-9]|4[0-9])m", out)  # no colour in any case


def test_with_colours_each_kind_has_its_own() -> None:
    text = rendered(sample("4"), **COLOURS)
    styles = {kind: re.search(rf"\x1b\[([0-9;]*)m{kind}\x1b", text) for kind in KINDS if kind != "prompt"}
    assert all(styles.values()) and len({found.group(1) for found in styles.values() if found}) == len(styles)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
@pytest.mark.parametrize("options", [{}, COLOURS], ids=["plain", "colours"])
def test_text_does_not_act_on_the_terminal(text: str, options: dict[str, Any]) -> None:
    out = rendered(sample(text), width=200, probabilities=True, **options)
    out.encode("utf-8")
    bare = re.sub("\x1b\\[[0-9;]*m", "", out)  # rich's own
    assert not ACTING.search(bare)
    if "\n" not in visible(text) and not options:
        assert visible(text) in bare


def test_a_terminal_that_is_not_unicode() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    show([sample("é🎉")], Console(file=out, width=100))
    out.flush()
    assert rb"\xe9\U0001f389" in out.buffer.getvalue()  # type: ignore[attr-defined]


def test_forks_are_columns_where_there_is_room() -> None:
    wide, narrow = rendered(sample("x"), width=100), rendered(sample("x"), width=40)
    assert re.search("fork 0 of 2 .*fork 1 of 2", wide)
    assert not re.search("fork 0 of 2 .*fork 1 of 2", narrow) and "fork 1 of 2" in narrow
    assert max(map(len, narrow.splitlines())) <= 40


def test_tables_of_tokens() -> None:
    text = rendered(sample("4"), width=140, probabilities=True)
    assert re.search(r'"4" +│ sampled +│ +90.5% +│ "4" 90.5%, "4" 5.0%', text)


# -- view and the command -------------------------------------------------------------------------------------------


def test_view_takes_states_traces_files_and_several(tmp_path: Path) -> None:
    states = list(program.run_batch([("a",), ("b",)], backend=FakeBackend()))
    states[0].save_trace(tmp_path / "t.json")
    shown = sgl.view([*states, states[0].trace(), tmp_path / "t.json", [states[1]]])
    assert len(shown.traces()) == 5
    shown.save(tmp_path / "t.html")
    assert (tmp_path / "t.html").read_text().count('<article class="sgl-trace"') == 5
    with pytest.raises(TypeError, match="a state, a trace or a file of one is needed, not int"):
        sgl.view(3)  # type: ignore[arg-type]


def run(*options: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["view", *options])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_writes_one_page(tmp_path: Path) -> None:
    trace, out = tmp_path / "t.json", tmp_path / "o.html"
    program.run(backend=FakeBackend(lambda call: "four")).save_trace(trace)
    code, _, _ = run(str(trace))
    assert code == 0 and (tmp_path / "t.html").exists()
    code, _, _ = run(str(trace), str(trace), "-o", str(out))
    assert code == 0 and Page(out.read_text()).texts("sampled")[:4] == list("four")
    code, text, _ = run(str(trace), "--text")
    assert code == 0 and "sampled (a)" in text


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    trace = tmp_path / "t.json"
    trace.write_text(json.dumps({"format": "other"}))
    assert run(str(trace))[0] == 2 and "not a trace" in run(str(trace))[2]
    assert run(str(tmp_path / "no.json"))[0] == 2
    program.run(backend=FakeBackend()).save_trace(trace)
    code, _, error = run(str(trace), "-o", str(trace))
    assert code == 2 and "is a trace" in error
    assert run(str(trace), "--probabilities")[0] == 2
