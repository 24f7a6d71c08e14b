"""What a program has after a gen, told to a backend that asks for several gens at once (``num_api_spec_tokens``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sgl_like.frontend.backend.speculation import Follow, Speculation
from sgl_like.frontend.compile import operations_for
from sgl_like.frontend.expr import Gen, Node, Text
from sgl_like.frontend.operations.base import Operation

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["operations_ahead"]


class Expect(Operation):
    """Done at once, right before the gen that `nodes` come after."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        super().__init__("expect()")
        self._nodes = nodes

    def start(self, at: Interpreter) -> bool:
        """See `Operation.start`."""
        backend, defaults = at.context.backend, at.context.defaults
        assert isinstance(backend, Speculation), "only such runs have expectations"
        follows: list[Follow] = []
        for node in self._nodes:
            if isinstance(node, Text):
                follows.append(Follow(node.text))
            elif isinstance(node, Gen):
                params = {**defaults, **node.params}
                stop = params.get("stop") or ()
                stops = (stop,) if isinstance(stop, str) else tuple(stop)
                follows.append(Follow(None, stops, params["max_new_tokens"]))
            else:
                break
        backend.expect(at.prompt.encode(backend), follows)
        return True


def operations_ahead(nodes: Sequence[Node], places: Iterator[tuple[int, ...]]) -> list[Operation]:
    """`operations_for`, with an `Expect` before every gen."""
    operations: list[Operation] = []
    for number, node in enumerate(nodes):
        if isinstance(node, Gen):
            operations.append(Expect(nodes[number + 1 :]))
        operations += operations_for([node], places)
    return operations
