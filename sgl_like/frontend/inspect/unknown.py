r"""Values that are not known while a program is traced: arguments that were not given, and what a model would write.

An `Unknown` stands where a string would: it can be added to text, formatted into an f-string, stripped and cut, and
in the text there is then a marker, which is shown as ``{{name}}``. What would have to know the value (to branch on it,
count with it, loop over it) raises a `TraceError` that says what was asked and how to give a value. It is no
`str`, so that nothing written in C can look at a marker and take it for the value.

    s["x"]              \ue0003\ue001         shown as {{x}}
    s["x"].strip()      \ue0004\ue001         shown as {{x.strip()}}
    "Q: " + question    Q: \ue0001\ue001      shown as Q: {{question}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from sgl_like.errors import TraceError
from sgl_like.frontend.expr import Expr, Node, flatten
from sgl_like.frontend.inspect.places import user_line

__all__ = ["Unknown", "Unknowns"]

_MARKER = re.compile("\ue000([0-9]+)\ue001")


class Unknowns:
    """The unknown values of one trace, by the numbers in their markers."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.made: list[Unknown] = []
        self.in_use = True  # markers are still put into text

    def argument(self, name: str) -> Unknown:
        """An argument that was not given."""
        return self._add(Unknown(self, name, f"{self.program}.trace({name}=...)"))

    def variable(self, name: str | None) -> Unknown:
        """What a gen or select would give its variable."""
        return self._add(Unknown(self, name or "gen", f"{self.program}.trace(..., values={{{name!r}: ...}})"))

    def text(self, what: str, content: str) -> Any:
        """Text of a state: itself, if there is nothing unknown in it."""
        origin = next(iter(self.all_in(content)), None)
        return (
            content if origin is None else self._add(Unknown(self, what, origin._hint, content, origin._root))
        )

    def derived(self, origin: Unknown, what: str, content: str | None = None) -> Unknown:
        """What is made of another unknown value."""
        return self._add(Unknown(self, what, origin._hint, content, origin._root))

    def shown(self, text: str) -> str:
        """`text` for people: ``{{name}}`` for each marker."""

        def name(match: re.Match[str]) -> str:
            number = int(match[1])
            return "{{" + self.made[number]._what + "}}" if number < len(self.made) else match[0]

        return _MARKER.sub(name, text)

    def all_in(self, text: str) -> list[Unknown]:
        """The unknown values in `text`, in order."""
        return [self.made[int(m[1])] for m in _MARKER.finditer(text) if int(m[1]) < len(self.made)]

    def are_in(self, value: Any) -> bool:
        """Whether a value, or a part of it, is not known."""
        if isinstance(value, Unknown):
            return True
        if isinstance(value, str):
            return bool(self.all_in(value))
        if isinstance(value, Mapping):
            return any(self.are_in(part) for item in value.items() for part in item)
        return isinstance(value, (list, tuple)) and any(map(self.are_in, value))

    def known_prefix(self, text: str) -> str:
        """`text` up to its first marker."""
        return text[: match.start()] if (match := _MARKER.search(text)) else text

    def shown_in(self, value: Any) -> Any:
        """`value` with its texts as they are shown, inside lists, tuples and dicts too."""
        if isinstance(value, str):
            return self.shown(value)
        if type(value) in (list, tuple):
            return type(value)(self.shown_in(item) for item in value)
        if type(value) is dict:
            return {self.shown_in(key): self.shown_in(item) for key, item in value.items()}
        return value

    def _add(self, unknown: Unknown) -> Unknown:
        unknown._number = len(self.made)
        self.made.append(unknown)
        return unknown


class Unknown(Expr):
    """A value that is not known. Its own attributes begin with an underscore: all others are the value's."""

    _number = -1

    def __init__(
        self, among: Unknowns, what: str, hint: str, content: str | None = None, root: Unknown | None = None
    ) -> None:
        self._among = among
        self._what = what
        self._hint = hint
        self._root = self if root is None else root
        self._content = content  # text with markers, if it is put together from what is known and what is not

    def _nodes(self) -> tuple[Node, ...]:
        return flatten(str(self))

    # -- what goes into text ------------------------------------------------------------------------------------

    def __str__(self) -> str:
        text = f"\ue000{self._number}\ue001" if self._content is None else self._content
        return text if self._among.in_use else self._among.shown(text)

    def __repr__(self) -> str:
        return str(self)  # a list of values is put into text by its items' repr

    def __format__(self, spec: str) -> str:
        return str(self._made(f"{self._what}:{spec}") if spec else self)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, (str, Unknown)):
            return self._made(self._what, f"{self}{other}")
        return (
            super().__add__(other) if isinstance(other, Expr) else self._refuse(f"+ {other!r} was computed")
        )

    def __radd__(self, other: Any) -> Any:
        if isinstance(other, str):
            return self._made(self._what, f"{other}{self}")
        return self._refuse(f"{other!r} + it was computed")

    def __getattr__(self, name: str) -> Unknown:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._made(f"{self._what}.{name}")

    def __getitem__(self, key: Any) -> Unknown:
        inside = repr(key)
        if isinstance(key, slice):
            inside = ":".join("" if part is None else repr(part) for part in (key.start, key.stop))
        return self._made(f"{self._what}[{inside}]")

    def __call__(self, *args: Any, **kwargs: Any) -> Unknown:
        """What a method of the value would return."""
        given = [repr(arg) for arg in args] + [f"{name}={value!r}" for name, value in kwargs.items()]
        return self._made(f"{self._what}({', '.join(given)})")

    def _made(self, what: str, content: str | None = None) -> Unknown:
        return self._among.derived(self, what, content)

    # -- what only the value itself could answer ----------------------------------------------------------------

    def __bool__(self) -> bool:
        self._refuse("it was branched on (its truth was asked)")

    def __eq__(self, other: object) -> bool:
        self._refuse(f"it was compared with {other!r}")

    def __ne__(self, other: object) -> bool:
        self._refuse(f"it was compared with {other!r}")

    def __hash__(self) -> int:
        self._refuse("it was looked up in a dict or set")

    def __iter__(self) -> NoReturn:
        self._refuse("it was looped over")

    def __len__(self) -> int:
        self._refuse("its length was asked")

    def __contains__(self, item: object) -> bool:
        self._refuse(f"{item!r} was looked for in it")

    def _number_asked(self, *_: Any) -> NoReturn:
        self._refuse("it was made a number")

    def _ordered(self, other: object) -> NoReturn:
        self._refuse(f"it was compared with {other!r}")

    def _counted(self, *_: Any) -> NoReturn:
        self._refuse("it was computed with")

    __int__ = __float__ = __index__ = __complex__ = __round__ = _number_asked
    __lt__ = __le__ = __gt__ = __ge__ = _ordered
    __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = (
        _counted
    )
    __mod__ = __rmod__ = __pow__ = __rpow__ = __neg__ = __pos__ = __abs__ = _counted
    __and__ = __or__ = __rand__ = __ror__ = _counted

    def _refuse(self, what: str = "it was used as a value") -> NoReturn:
        shown = self._among.shown(self._what)
        place = user_line()
        where = self._among.program if place is None else f"{self._among.program}, line {place.line}"
        raise TraceError(
            f"{where}: the value of {shown} is not known in a trace, and {self._among.shown(what)};"
            f" give it one, e.g. {self._hint}",
            program=self._among.program,
            variable=shown,
            line=None if place is None else place.line,
        )
