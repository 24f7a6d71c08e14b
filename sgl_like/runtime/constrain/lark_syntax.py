"""Lark's grammar syntax as text: definitions, statements, and the modules that come with lark.

The grammar below is that of ``lark/grammars/lark.lark`` (lark 1.3), a little wider: line ends mean nothing, since a
definition begins where a name is followed by a colon.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources

from sgl_like.runtime.constrain.grammar import Source
from sgl_like.runtime.constrain.grammar_text import ParseTree, Token, parse, position

__all__ = ["ESCAPES", "LarkDefinition", "LarkModule", "children", "library", "read_module"]

_RULE = r"_?[a-z][_a-z0-9]*"
_TERMINAL = r"_?[A-Z][_A-Z0-9]*"
_HEAD_END = r"(?=\s*(?:\{[^{}:]*\}\s*)?(?:\.\s*-?[0-9]+\s*)?:)"
_SYNTAX = rf"""
start: (definition | ignore | import_ | unsupported)*
definition: HEAD params? _priority? ":" choice
params: "{{" NAME ("," NAME)* "}}"
_priority: "." NUMBER
ignore: "%ignore" choice
import_: "%import" path ("->" NAME | names)?
path: DOT? NAME ("." NAME)*
names: "(" NAME ("," NAME)* ")"
unsupported: (DECLARE NAME+) | (OVERRIDE | EXTEND) definition
choice: sequence ("|" sequence)*
sequence: times* ("->" NAME)?
times: _atom (OPERATOR | "~" NUMBER (RANGE NUMBER)?)?
_atom: range | STRING | REGEXP | NAME | template | "(" choice ")" | maybe
range: STRING RANGE STRING
maybe: "[" choice "]"
template: NAME "{{" choice ("," choice)* "}}"
HEAD.2: /[!?]{{0,2}}(?:{_RULE}|{_TERMINAL}){_HEAD_END}/
NAME: /{_RULE}|{_TERMINAL}/
STRING: /"(?:\\.|[^"\\\n])*"i?/
REGEXP: /\/(?!\/)(?:\\.|[^\/\\])*\/[imslux]*/
OPERATOR: /[+*?]/
NUMBER: /-?[0-9]+/
RANGE.1: ".."
DOT: "."
DECLARE: "%declare"
OVERRIDE: "%override"
EXTEND: "%extend"
%ignore /\s+/
%ignore /\/\/[^\n]*/
%ignore /#[^\n]*/
"""
_NAMES = {
    "HEAD": "a definition (name: ...)", "NAME": "a name", "STRING": '"text"', "REGEXP": "/regex/", "OPERATOR": "'*'",
    "NUMBER": "a number", "RANGE": "'..'", "DOT": "'.'", "DECLARE": "'%declare'", "OVERRIDE": "'%override'",
    "EXTEND": "'%extend'", "VBAR": "'|'", "LPAR": "'('", "RPAR": "')'", "LSQB": "'['", "RSQB": "']'", "LBRACE": "'{'",
    "RBRACE": "'}'", "COMMA": "','", "COLON": "':'", "TILDE": "'~'", "IGNORE": "'%ignore'", "IMPORT": "'%import'",
    "__ANON_0": "'->'", "$END": "the end",
}  # fmt: skip

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "\\": "\\", '"': '"'}
"""What may follow a backslash in a string, as in lark; what lark leaves as it stands (``"\\."``) is an error here."""


@dataclass(frozen=True)
class LarkDefinition:
    """A rule, a terminal or a template. `params`: of a template."""

    head: Token
    params: tuple[str, ...]
    body: ParseTree


@dataclass(frozen=True)
class LarkModule:
    """One grammar text. `imports`: local name to (library, name there)."""

    source: Source
    definitions: dict[str, LarkDefinition] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    ignored: list[ParseTree] = field(default_factory=list)


def children(tree: ParseTree | Token) -> list[ParseTree | Token]:
    """The children of what is known to be a tree."""
    assert not isinstance(tree, Token)
    return tree.children


def read_module(source: Source) -> LarkModule:
    """Parse a grammar and sort its statements.

    Raises:
        ConstraintError: a syntax error, a name defined twice, or a statement that is not supported.
    """
    module = LarkModule(source)
    for item in parse(_SYNTAX, source, _NAMES).children:
        assert not isinstance(item, Token)
        if item.data == "definition":
            _define(module, item)
        elif item.data == "ignore":
            module.ignored.append(_tree(item.children[0]))
        elif item.data == "import_":
            _import(module, item)
        else:
            word = _token(item.children[0])
            raise source.error(f"{word} is not supported", position(word))
    return module


def _define(module: LarkModule, item: ParseTree) -> None:
    head = _token(item.children[0])
    name = head.lstrip("!?")
    if name in module.definitions or name in module.imports:
        raise module.source.error(f"{name!r} is defined twice", position(head))
    params: tuple[str, ...] = ()
    for child in item.children[1:-1]:
        if not isinstance(child, Token):
            params = tuple(str(param) for param in child.children)
    module.definitions[name] = LarkDefinition(head, params, _tree(item.children[-1]))


def _import(module: LarkModule, item: ParseTree) -> None:
    path = [_token(token) for token in children(item.children[0])]
    extra = item.children[1] if len(item.children) > 1 else None
    if isinstance(extra, Token):
        wanted = {str(extra): str(path[-1])}
    elif extra is not None:
        wanted = {str(name): str(name) for name in extra.children}
    else:
        wanted = {str(path[-1]): str(path[-1])}
    steps = path if extra is not None and not isinstance(extra, Token) else path[:-1]
    if len(steps) != 1 or steps[0].type == "DOT":
        raise module.source.error(
            "only lark's own grammars can be imported, as in common.INT", position(path[0])
        )
    try:
        found = library(str(steps[0]))
    except FileNotFoundError:
        raise module.source.error(f"lark has no grammar {str(steps[0])!r}", position(path[0])) from None
    for local, name in wanted.items():
        if name not in found.definitions or not name.isupper():
            raise module.source.error(f"{steps[0]} has no terminal {name!r}", position(path[-1]))
        if local in module.definitions or local in module.imports:
            raise module.source.error(f"{local!r} is defined twice", position(path[-1]))
        module.imports[local] = str(steps[0]), name


# A lazy quantifier means "up to the first", which no language can say, and look-behind is not supported. These say it.
_INSTEAD = r"""
ESCAPED_STRING: /"(?:[^"\\\n]|\\[^\n])*"/
C_COMMENT: /\/\*(?:[^*]|\*+[^*\/])*\*+\//
"""


@lru_cache(maxsize=8)
def library(name: str) -> LarkModule:
    """A grammar of the installed lark package, e.g. ``common``. Raises FileNotFoundError."""
    text = (resources.files("lark") / "grammars" / f"{name}.lark").read_text(encoding="utf-8")
    found = read_module(Source(f"{name}.lark of the lark package", text))
    if name == "common":
        found.definitions.update(read_module(Source("built-in terminals", _INSTEAD)).definitions)
    return found


def _token(item: ParseTree | Token) -> Token:
    assert isinstance(item, Token)
    return item


def _tree(item: ParseTree | Token) -> ParseTree:
    assert not isinstance(item, Token)
    return item
