"""What an object or an array still needs, as far as can be told without searching: a guide for `search`."""

from __future__ import annotations

from sgl_like.runtime.constrain.pushdown.arrays import Array, InItem
from sgl_like.runtime.constrain.pushdown.formula import And, Formula, Or
from sgl_like.runtime.constrain.pushdown.frame import Frame
from sgl_like.runtime.constrain.pushdown.leaves import InArray, InObject
from sgl_like.runtime.constrain.pushdown.objects import InKey, InValue, Object
from sgl_like.runtime.constrain.pushdown.syntax import Style
from sgl_like.runtime.constrain.pushdown.values import running

__all__ = ["Needs", "counts", "late", "required_names"]


class Needs:
    """What was found out about formulas."""

    def __init__(self) -> None:
        self._bounds: dict[tuple[Formula, Style], int] = {}
        self._chosen: dict[Formula, frozenset[str] | None] = {}

    def wanted(self, object: Object) -> frozenset[str] | None:
        """Names of which the next key may as well be one; None if it may be any."""
        choices = self._choices(object.must)
        if choices is None or object.env.style.any_order:
            return choices
        places = object.first.places
        last = max(places[name] for name in choices)
        return frozenset(name for name, place in places.items() if object.place <= place <= last)

    def _choices(self, formula: Formula) -> frozenset[str] | None:
        """Names of which one at least has to come; None if none has to, as far as is known. As few as possible."""
        if formula in self._chosen:
            return self._chosen[formula]
        names = next(iter(required_names(formula)), None)
        found = None if names is None else frozenset([names])
        if found is None:
            ways = []
            for part in formula.parts if isinstance(formula, And) else (formula,):
                options = [self._choices(each) for each in part.parts] if isinstance(part, Or) else [None]
                if None not in options:
                    ways.append(frozenset[str]().union(*(each for each in options if each is not None)))
            found = min(ways, key=len, default=None)
        self._chosen[formula] = found
        return found

    def bound(self, frame: Frame) -> int:
        """A lower bound of what a frame that has frames above it still reads itself."""
        if isinstance(frame, Object | Array):
            return 1 + self._needed(frame.must, frame.env.style)
        if isinstance(frame, InValue | InItem):
            return 1 + self._needed(frame.next.must, frame.env.style)
        return 1 if isinstance(frame, InKey) else 0

    def _needed(self, formula: Formula, style: Style) -> int:
        """A lower bound of the bytes of the members or items that have to come."""
        key = (formula, style)
        found = self._bounds.get(key)
        if found is None:
            comma = 1 + style.comma_gap
            parts = formula.parts if isinstance(formula, And) else (formula,)
            member = comma + 2 + 1 + style.colon_gap + 1
            names = required_names(formula)
            least = sum(member + len(name.encode("utf-8", "surrogatepass")) for name in names)
            for part in parts:
                if isinstance(part, InObject):
                    least = max(least, (part.part.low - part.count) * member)
                elif isinstance(part, InArray):
                    items = max(part.part.low - part.count, part.part.contains_low - part.hits)
                    least = max(least, items * (comma + 1))
            found = max(least - comma, 0)
            for part in parts:
                if isinstance(part, Or):
                    found = max(found, min(self._needed(each, style) for each in part.parts))
            self._bounds[key] = found
        return found


def required_names(formula: Formula) -> dict[str, None]:
    """Names of members that still have to come whatever else does, in order."""
    if isinstance(formula, InObject):
        return dict.fromkeys(formula.missing())
    if isinstance(formula, And):
        return {name: None for part in formula.parts for name in required_names(part)}
    if isinstance(formula, Or):
        first, *rest = (required_names(part) for part in formula.parts)
        return {name: None for name in first if all(name in each for each in rest)}
    return {}


def late(formula: Formula, object: Object) -> bool:
    """In schema order: whether a member that has to come cannot come any more."""
    if object.env.style.any_order:
        return False
    if isinstance(formula, And):
        return any(late(part, object) for part in formula.parts)
    if isinstance(formula, Or):
        return all(late(part, object) for part in formula.parts)
    if isinstance(formula, InObject):
        places = object.first.places
        return any(places.get(name, -1) < object.place for name in formula.missing())
    return False


def counts(object: Object) -> bool:
    """Whether the number of members means something, so that their names must differ."""
    return any(
        isinstance(leaf, InObject) and (leaf.count < leaf.part.low or leaf.part.high is not None)
        for leaf in running(object.must, *object.watch)
    )
