"""From nodes to operations: what one state will do for an expression, checked before any of it is queued."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sgl_like.errors import ProgramError
from sgl_like.frontend.expr import Gen, Node, RoleBegin, RoleEnd, Select, Text
from sgl_like.frontend.media import Image
from sgl_like.frontend.operations.base import Operation
from sgl_like.frontend.operations.generate import Generate
from sgl_like.frontend.operations.picture import AppendPictures
from sgl_like.frontend.operations.select import Select as SelectOperation
from sgl_like.frontend.operations.text import AppendText, CloseRole, OpenRole
from sgl_like.frontend.operations.tool_calls import GenerateWithTools
from sgl_like.frontend.operations.tool_text import AppendToolInstructions
from sgl_like.frontend.outputs.separation import SeparateReasoning, reasoning_name
from sgl_like.frontend.tools.tool_text import ToolInstructions
from sgl_like.frontend.variables import Variable

__all__ = ["operations_for", "role_after"]


def operations_for(nodes: Iterable[Node], places: Iterator[tuple[int, ...]]) -> list[Operation]:
    """One operation for each node that does something. Every execution gets variables of its own, every gen a place."""
    operations = []
    for node in nodes:
        if not isinstance(node, SeparateReasoning):
            operation = _operation(node, places)
            if isinstance(node, (Gen, Select)):
                operation.timeout = node.timeout
            operations.append(operation)
    return operations


def _operation(node: Node, places: Iterator[tuple[int, ...]]) -> Operation:
    match node:
        case Text():
            return AppendText(node.label, node.text)
        case Image():
            return AppendPictures(node.label, node.pictures)
        case ToolInstructions():
            return AppendToolInstructions(node)
        case Gen():
            if node.tools is not None:
                return GenerateWithTools(node, node.tools, Variable(node.name), next(places))
            thoughts = None if node.make_splitter is None else Variable(reasoning_name(node.name))
            return Generate(node, Variable(node.name, node.output_type), next(places), thoughts)
        case Select():
            return SelectOperation(node, Variable(node.name), next(places))
        case RoleBegin():
            return OpenRole(node.label, node.role)
        case RoleEnd():
            return CloseRole(node.label)
    raise TypeError(f"there is no operation for {node!r}")


def role_after(role: str | None, nodes: Sequence[Node], program: str) -> str | None:
    """The message open after `nodes`, if `role` is open before them.

    Raises:
        ProgramError: messages are nested, or one is ended that is not open.
    """
    for node in nodes:
        if isinstance(node, RoleBegin):
            if role is not None:
                what = f"the {node.role} message cannot begin inside the {role} message"
                raise ProgramError(f"{program}: {what}", program=program, node=node.label)
            role = node.role
        elif isinstance(node, RoleEnd):
            if role != node.role:
                what = f"the open message is the {role}'s" if role else "no message is open"
                raise ProgramError(
                    f"{program}: there is no {node.role} message to end: {what}",
                    program=program,
                    node=node.label,
                )
            role = None
    return role
