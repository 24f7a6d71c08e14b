"""Lark grammars to expressions: a context-free grammar over bytes, with no lexer in between.

Rules and terminals are read as in lark's ``parser="earley", lexer="dynamic_complete"``: every way to cut the output
into terminals counts. A lexer that takes the longest match would refuse ``125`` for ``NUM "5"`` with ``NUM: /[0-9]+/``;
here it is allowed. What follows from that:

* Priorities (``rule.2``, ``TERMINAL.5``) are accepted and change nothing: they choose between parses of one output,
  and never whether there is one. Nor do aliases, ``?rule``, ``!rule``, ``_rule`` and ``[x]`` as opposed to ``(x)?``.
* A terminal is a regular language: the strings that ``re.fullmatch`` would take. A lazy quantifier is the same as a
  greedy one; look-aheads and anchors see the text of their terminal only. ``common.ESCAPED_STRING`` and
  ``common.C_COMMENT``, which mean "up to the first end", have definitions of our own that say so.
* ``%ignore``: what is ignored may stand before and after every terminal of a rule, never inside one, up to
  `IGNORE_BYTES` bytes in a row by default, so that no model can pad for ever.

Templates are expanded, with at most `MAX_INSTANCES` instances. Imports are terminals of lark's own grammars. Not
supported: ``%declare``, ``%override``, ``%extend``, relative imports.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sgl_like.errors import ConstraintError, ConstraintTooComplex
from sgl_like.runtime.constrain.codepoints import utf8
from sgl_like.runtime.constrain.derive import conjoin
from sgl_like.runtime.constrain.expr import ALL_BYTES, EMPTY, EPSILON, Bytes, Node, Pool, Repeat, Strings
from sgl_like.runtime.constrain.grammar import (
    IGNORE_BYTES,
    Choice,
    Definition,
    Leaf,
    Position,
    Ref,
    Seq,
    Source,
    Term,
    Times,
    build,
)
from sgl_like.runtime.constrain.grammar_text import ParseTree, Token, expand, position, repetition
from sgl_like.runtime.constrain.lark_syntax import (
    ESCAPES,
    LarkDefinition,
    LarkModule,
    children,
    library,
    read_module,
)
from sgl_like.runtime.constrain.regex import regex_to_expr

__all__ = ["MAX_INSTANCES", "lark_to_expr"]

MAX_INSTANCES = 1000

_OPERATORS: Mapping[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def lark_to_expr(
    pool: Pool, text: str, start: str = "start", ignore_bytes: int | None = IGNORE_BYTES
) -> Node:
    """The language of rule `start`.

    Args:
        pool: where the expressions are made.
        text: the grammar.
        start: the rule to begin with.
        ignore_bytes: how many bytes of ignored terminals may come in a row; None: any number.

    Raises:
        ConstraintError: bad syntax, something undefined or not supported, or no output at all; with line and column.
        ConstraintTooComplex: a limit of the pool was reached.
    """
    module = read_module(Source("Lark grammar", text))
    terminals = _Terminals(pool)
    gap = _gap(pool, [terminals.regular(module, tree) for tree in module.ignored], ignore_bytes)
    rules = _Rules(pool, module, terminals, gap).convert()
    if start not in rules:
        at = next((rule.at for rule in rules.values()), Position(1, 1))
        raise module.source.error(f"there is no rule {start!r} to begin with", at)
    return pool.concat(gap, build(pool, rules, start))


def _gap(pool: Pool, ignored: list[Node], most: int | None) -> Node:
    """What may stand between terminals."""
    mask = 0
    for node in ignored:  # mostly single white space characters, which need no conjunction to be counted
        item = node.item if isinstance(node, Repeat) and node.low <= 1 and node.high is None else node
        if isinstance(item, Bytes):
            mask |= item.mask
        elif isinstance(item, Strings) and all(len(string) == 1 for string in item.strings):
            mask |= sum(1 << string[0] for string in item.strings)
        else:
            anything = pool.repeat(pool.alt(ignored), 0, None)
            if most is None:
                return anything
            return conjoin(pool, [anything, pool.repeat(pool.byte_set(ALL_BYTES), 0, most)])
    return pool.repeat(pool.byte_set(mask), 0, most)


class _Terminals:
    """Converts what is regular."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._nodes: dict[tuple[str, str], Node] = {}
        self._open: list[tuple[str, str]] = []

    def named(self, module: LarkModule, name: Token) -> Node:
        """The terminal that is called `name` in `module`."""
        if name in module.imports:
            home, other = module.imports[name]
            module, name = library(home), Token("NAME", other, line=name.line, column=name.column)
        source = module.source
        definition = module.definitions.get(str(name))
        if definition is None:
            raise source.error(f"terminal {str(name)!r} is not defined", position(name))
        if definition.params:
            raise source.error("templates of terminals are not supported", position(definition.head))
        key = source.name, str(name)
        if key in self._open:
            raise source.error(f"terminal {str(name)!r} contains itself; only rules may", position(name))
        if key not in self._nodes:
            self._open.append(key)
            node = self._nodes[key] = self.regular(module, definition.body)
            self._open.pop()
            if node is EMPTY:
                raise source.error(f"terminal {str(name)!r} never matches", position(definition.head))
        return self._nodes[key]

    def regular(self, module: LarkModule, tree: ParseTree) -> Node:
        """What a terminal's definition, or a part of it, matches."""
        pool, kind = self._pool, tree.data
        if kind == "choice":
            return pool.alt(self.regular(module, _tree(item)) for item in tree.children)
        if kind == "sequence":
            return pool.sequence(
                *(self.regular(module, c) for c in tree.children if not isinstance(c, Token))
            )
        if kind == "times":
            return pool.repeat(self._atom(module, tree.children[0]), *_bounds(module.source, tree))
        if kind == "maybe":
            return pool.optional(self.regular(module, _tree(tree.children[0])))
        if kind == "range":
            return self._range(module, tree)
        raise module.source.error("templates cannot be used in terminals", position(_first(tree)))

    def _atom(self, module: LarkModule, item: ParseTree | Token) -> Node:
        if not isinstance(item, Token):
            return self.regular(module, item)
        if item.type != "NAME":
            return self.literal(module, item)
        if not item.isupper():
            raise module.source.error(f"a terminal cannot contain the rule {str(item)!r}", position(item))
        return self.named(module, item)

    def literal(self, module: LarkModule, token: Token) -> Node:
        """A string or regex."""
        end = token.rindex('"' if token.type == "STRING" else "/")
        flags, body = set(token[end + 1 :]), token[1:end]
        if token.type == "STRING":
            text = "".join(c for c, _ in expand(module.source, token, body, 1, ESCAPES))
            if not flags:
                return self._pool.literal(text.encode())
            body = re.escape(text)
        if "l" in flags:
            raise module.source.error("flag l (locale) is not supported", position(token))
        flags.discard("u")  # the default
        try:
            return regex_to_expr(self._pool, f"(?{''.join(sorted(flags))}){body}" if flags else body)
        except ConstraintTooComplex:
            raise
        except ConstraintError as error:
            raise module.source.error(str(error), position(token)) from None

    def _range(self, module: LarkModule, tree: ParseTree) -> Node:
        bounds: list[int] = []
        for token in (tree.children[0], tree.children[-1]):
            assert isinstance(token, Token)
            text = [c for c, _ in expand(module.source, token, token[1:-1], 1, ESCAPES)]
            if len(text) != 1 or not token.endswith('"'):
                raise module.source.error("a range goes from one character to another", position(token))
            bounds.append(ord(text[0]))
        if bounds[0] > bounds[1]:
            raise module.source.error(
                "a range goes from a lower to a higher character", position(_first(tree))
            )
        return utf8(self._pool, ((bounds[0], bounds[1]),))


class _Rules:
    """Converts the rules of one module to terms."""

    def __init__(self, pool: Pool, module: LarkModule, terminals: _Terminals, gap: Node) -> None:
        self._pool = pool
        self._module = module
        self._terminals = terminals
        self._gap = Leaf(gap)
        self._rules: dict[str, Definition] = {}
        self._instances: dict[tuple[str, tuple[Term, ...]], str] = {}
        self._arguments: dict[Term, Ref] = {}
        self._todo: list[tuple[str, LarkDefinition, Mapping[str, Term]]] = []

    def convert(self) -> dict[str, Definition]:
        """All rules, instances of templates included."""
        for name, definition in self._module.definitions.items():
            if not name.isupper() and not definition.params:
                self._todo.append((name, definition, {}))
        for name, definition, arguments in self._todo:  # grows while it runs
            body, at = self._term(definition.body, arguments), position(definition.head)
            self._rules[name] = Definition(body, at, self._module.source)
        return self._rules

    def _term(self, tree: ParseTree, arguments: Mapping[str, Term]) -> Term:
        if tree.data == "choice":
            items = tuple(self._term(_tree(item), arguments) for item in tree.children)
            return items[0] if len(items) == 1 else Choice(items)
        if tree.data == "sequence":
            return Seq(tuple(self._term(c, arguments) for c in tree.children if not isinstance(c, Token)))
        if tree.data == "times":
            low, high = _bounds(self._module.source, tree)
            atom = tree.children[0]
            term = self._token(atom, arguments) if isinstance(atom, Token) else self._term(atom, arguments)
            return term if (low, high) == (1, 1) else Times(term, low, high)
        if tree.data == "maybe":
            return Times(self._term(_tree(tree.children[0]), arguments), 0, 1)
        if tree.data == "range":
            return self._terminal(self._terminals.regular(self._module, tree))
        return self._instance(tree, arguments)

    def _token(self, token: Token, arguments: Mapping[str, Term]) -> Term:
        if token.type != "NAME":
            return self._terminal(self._terminals.literal(self._module, token))
        if token in arguments:
            return arguments[token]
        if token.isupper():
            return self._terminal(self._terminals.named(self._module, token))
        definition = self._module.definitions.get(str(token))
        if definition is not None and definition.params:
            raise self._module.source.error(f"template {str(token)!r} without arguments", position(token))
        return Ref(str(token), position(token))

    def _terminal(self, node: Node) -> Term:
        """A terminal and what is ignored after it."""
        if self._gap.node is EPSILON or node is EPSILON:
            return Leaf(node)
        if not node.nullable:
            return Seq((Leaf(node), self._gap))
        some = Leaf(conjoin(self._pool, [node], [EPSILON]))  # after nothing, nothing is ignored once more
        return Choice((Seq((some, self._gap)), Leaf(EPSILON)))

    def _instance(self, tree: ParseTree, arguments: Mapping[str, Term]) -> Term:
        """A template with its arguments: a rule of its own."""
        name, source = _first(tree), self._module.source
        given = tuple(
            self._argument(self._term(_tree(item), arguments), position(name)) for item in tree.children[1:]
        )
        definition = self._module.definitions.get(str(name))
        if definition is None or not definition.params:
            raise source.error(f"there is no template {str(name)!r}", position(name))
        if len(given) != len(definition.params):
            message = f"template {str(name)!r} takes {len(definition.params)} arguments, not {len(given)}"
            raise source.error(message, position(name))
        own = self._instances.get((name, given))
        if own is None:
            if len(self._instances) >= MAX_INSTANCES:
                raise ConstraintTooComplex(f"the templates have more than {MAX_INSTANCES} instances")
            own = self._instances[name, given] = f"{name}{{{len(self._instances)}}}"
            self._todo.append((own, definition, dict(zip(definition.params, given, strict=True))))
        return Ref(own, position(name))

    def _argument(self, term: Term, at: Position) -> Term:
        """A name for an argument, so that arguments made of arguments do not double in size each time."""
        if isinstance(term, Leaf | Ref):
            return term
        if term not in self._arguments:
            ref = self._arguments[term] = Ref(f"argument {len(self._arguments)}", at)
            self._rules[ref.name] = Definition(term, at, self._module.source)
        return self._arguments[term]


def _bounds(source: Source, tree: ParseTree) -> tuple[int, int | None]:
    """How often an atom comes."""
    tokens = [child for child in tree.children[1:] if isinstance(child, Token)]
    if not tokens:
        return 1, 1
    if tokens[0].type == "OPERATOR":
        return _OPERATORS[str(tokens[0])]
    if any(token.startswith("-") for token in tokens):
        raise source.error("a repetition is not negative", position(tokens[0]))
    return repetition(source, tokens[0], tokens[0], tokens[-1])


def _first(tree: ParseTree) -> Token:
    """The first token of a tree."""
    item = tree.children[0]
    while not isinstance(item, Token):
        item = children(item)[0]
    return item


def _tree(item: ParseTree | Token) -> ParseTree:
    assert not isinstance(item, Token)
    return item
