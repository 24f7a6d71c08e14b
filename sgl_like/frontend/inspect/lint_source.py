"""Rules about the source of a program: what a single trace need not come across."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sgl_like.frontend.inspect.findings import Finding, Level

__all__ = ["SOURCE_RULES", "Source"]

_MAKERS = frozenset(f"sgl_like.frontend.{name}" for name in ("api", "media", "separation", "typed_gens"))
"""Modules whose functions make expressions."""


@dataclass(frozen=True)
class Source:
    """The body of a program as a tree.

    Args:
        func: the body.
        tree: its definition.
        offset: line of the file minus line of the tree.
        names: what the names in it mean that are not its own.
    """

    func: Callable[..., Any]
    tree: ast.FunctionDef | ast.AsyncFunctionDef
    offset: int
    names: dict[str, Any]

    @classmethod
    def of(cls, func: Callable[..., Any]) -> Source | None:
        """``None`` if there is no source, e.g. of a program typed into an interpreter."""
        try:
            lines, start = inspect.getsourcelines(func)
            tree = ast.parse(textwrap.dedent("".join(lines))).body[0]
        except (OSError, TypeError, SyntaxError, IndexError):
            return None
        if not isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return None
        outside = inspect.getclosurevars(func)
        return cls(func, tree, start - 1, {**outside.globals, **outside.nonlocals})

    def found(self, node: ast.expr | ast.stmt | ast.arg, rule: str, level: Level, message: str) -> Finding:
        """A finding where a node is."""
        return Finding(rule, level, message, node.lineno + self.offset, inspect.getsourcefile(self.func))

    def expression(self, node: ast.AST) -> str | None:
        """The name of the function of ours that `node` calls, if it is one that makes expressions."""
        if not isinstance(node, ast.Call):
            return None
        target: Any = None
        if isinstance(node.func, ast.Name):
            target = self.names.get(node.func.id)
        elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            target = getattr(self.names.get(node.func.value.id), node.func.attr, None)
        return target.__name__ if inspect.isfunction(target) and target.__module__ in _MAKERS else None


def expressions_in_strings(source: Source) -> Iterator[Finding]:
    """Gens that are made a string, which has no place for what is not known yet; f-strings and format() keep one."""
    for node in ast.walk(source.tree):
        inside: list[ast.expr] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join":
            inside = [*node.args, *(keyword.value for keyword in node.keywords)]
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("str", "repr")
        ):
            inside = node.args
        elif (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Mod)
            and isinstance(node.left, (ast.Constant, ast.JoinedStr))
        ):
            inside = [node.right]
        for part in inside:
            for each in [part, *getattr(part, "elts", ())]:
                if (name := source.expression(each)) is not None:
                    message = (
                        f'{name}(...) cannot be made a string: add it, as in s += "..." + sgl.{name}(...)'
                    )
                    yield source.found(each, "gen-in-string", "error", message)


def dropped_expressions(source: Source) -> Iterator[Finding]:
    """Gens and messages that are made, but added to nothing."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Expr):
            value = node.value
            parts = [value.left, value.right] if isinstance(value, ast.BinOp) else [value]
            name = next((name for part in parts if (name := source.expression(part)) is not None), None)
            if name is not None:
                yield source.found(
                    node,
                    "dropped",
                    "warning",
                    f"{name}(...) does nothing unless it is added: s += sgl.{name}(...)",
                )


def unused_parameters(source: Source) -> Iterator[Finding]:
    """Parameters of the program that its body never uses."""
    given = source.tree.args
    used = {node.id for node in ast.walk(source.tree) if isinstance(node, ast.Name)}
    for parameter in [*given.posonlyargs, *given.args, *given.kwonlyargs][1:]:
        if parameter.arg not in used and not parameter.arg.startswith("_"):
            yield source.found(
                parameter, "unused-parameter", "warning", f"the parameter {parameter.arg!r} is never used"
            )


SOURCE_RULES: tuple[Callable[[Source], Iterator[Finding]], ...] = (
    expressions_in_strings, dropped_expressions, unused_parameters,
)  # fmt: skip
