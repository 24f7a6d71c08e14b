"""JSON numbers within bounds and multiples of something, digit by digit.

Integers are exact. Numbers within bounds are written without exponent, and with decimals only up to 15 digits in all:
so many are told apart by 64-bit floats, so that a checker that computes in floats agrees about the bounds. Without a
bound on one side at most `MAX_DIGITS` digits are written, so that no model can run on.

`multipleOf` is decided by remainders in decimal arithmetic, without rounding. Where the divisor is a float that is
not a sum of powers of two (0.01), a number also has to pass the test that Python's `jsonschema` makes in floats;
some multiples do not (0.07): no checker refuses what is written here. Those numbers are in `float_multiples`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from sgl_like.errors import UnsupportedSchemaError
from sgl_like.runtime.constrain.derive import conjoin
from sgl_like.runtime.constrain.expr import EMPTY, EPSILON, Divisor, Node, Pool
from sgl_like.runtime.constrain.float_multiples import DIGITS, FloatMultiples, start_of
from sgl_like.runtime.constrain.pushdown.keywords import at

__all__ = ["MAX_DIGITS", "Numbers"]

MAX_DIGITS = 64
_MORE_ZEROS = 4  # zeros that may be written without need: 2.0000


class Bound(NamedTuple):
    """A bound; `strict`: the value itself is outside."""

    value: Decimal
    strict: bool


class Form(NamedTuple):
    """How decimals are written: at most `places` of them, and whether there have to be some."""

    places: int = DIGITS
    has_point: bool = False


class Numbers:
    """Builds the expressions of JSON numbers in one pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._digit = pool.byte_range(0x30, 0x39)
        self._minus = pool.literal(b"-")

    def from_schema(self, schema: Mapping[str, Any], types: Collection[str], pointer: str = "") -> Node:
        """A number that the bounds and `multipleOf` of `schema` allow: any if `types` has ``number``; else, if it has
        ``integer``, a whole one, also written with zeros as decimals (``6.0``); else none.

        Raises: see `number`.
        """
        if "number" in types:
            return self.number(schema, pointer)
        if "integer" not in types:
            return EMPTY
        if _is_tested(schema, whole=True):
            return self._in_floats(schema, _whole_divisor(schema["multipleOf"], pointer), _MORE_ZEROS)
        return self._pool.alt((self.integer(schema, pointer), self._whole_with_zeros(schema, pointer)))

    def decimal(self) -> Node:
        """Numbers of up to 15 digits without exponent and without a needless zero or sign. About these every schema
        decides exactly, so what it forbids is to be looked for among these: ``1e3`` is never allowed, whatever the
        bounds are.
        """
        pool = self._pool
        parts = [self._natural(1, 10**DIGITS - 1)]
        for size in range(1, DIGITS):
            whole = self._natural(10 ** (size - 1) if size > 1 else 0, 10**size - 1)
            digits = self._digits(0, DIGITS - size - 1)
            parts.append(pool.sequence(whole, pool.literal(b"."), digits, pool.byte_range(0x31, 0x39)))
        nonzero = pool.alt(parts)
        return pool.alt((pool.literal(b"0"), nonzero, pool.concat(self._minus, nonzero)))

    def integer(self, schema: Mapping[str, Any], pointer: str = "") -> Node:
        """An integer (no decimals, no exponent) within `minimum`, `maximum` and the exclusive ones, and, if there is
        `multipleOf`, a multiple of that.

        Raises: see `number`.
        """
        if _is_tested(schema, whole=True):
            return self._in_floats(schema, _whole_divisor(schema["multipleOf"], pointer), 0)
        return self._integers(schema, pointer, None)

    def number(self, schema: Mapping[str, Any], pointer: str = "") -> Node:
        """A number within `minimum`, `maximum` and the exclusive ones; with `multipleOf` only multiples of that.

        Raises:
            UnsupportedSchemaError: `multipleOf` is not a positive number.
            ConstraintTooComplex: a limit was reached.
        """
        lower, upper = _bounds(schema)
        if "multipleOf" not in schema:
            return self._free_number() if lower is None and upper is None else self._within(lower, upper)
        divisor = _divisor(schema["multipleOf"], pointer)
        if _is_tested(schema, whole=False):
            return self._in_floats(schema, divisor, _MORE_ZEROS)
        parts = [self._integers(schema, pointer, None), self._whole_with_zeros(schema, pointer)]
        if divisor.places:
            decimals = self._within(lower, upper, Form(divisor.places, True))
            found = conjoin(self._pool, [decimals, self._pool.multiple(divisor)])
            parts.append(self._pool.concat(found, self._zeros(0)))
        return self._pool.alt(parts)

    def _integers(self, schema: Mapping[str, Any], pointer: str, digits: int | None) -> Node:
        """The integers that `schema` allows, with at most that many `digits`."""
        lower, upper = _bounds(schema)
        low = None if lower is None else _round(lower, up=True)
        high = None if upper is None else _round(upper, up=False)
        divisor = None
        if "multipleOf" in schema:
            divisor = _whole_divisor(schema["multipleOf"], pointer)
            if isinstance(schema["multipleOf"], float) and schema["multipleOf"] != 1:
                digits = DIGITS
            low = None if low is None else -(-low // divisor.modulus) * divisor.modulus
            high = None if high is None else high // divisor.modulus * divisor.modulus
        if digits is not None:
            most = 10**digits - 1
            low, high = (
                max(-most, low if low is not None else -most),
                min(most, high if high is not None else most),
            )
        found = self._signed_integer(low, high)
        if divisor is None or divisor.modulus == 1:
            return found
        return conjoin(self._pool, [found, self._pool.multiple(divisor)])

    def _in_floats(self, schema: Mapping[str, Any], divisor: Divisor, zeros: int) -> Node:
        """Numbers that `schema` allows which also have to pass the test in floats."""
        lower, upper = _bounds(schema)
        most: int = 10 ** (DIGITS + divisor.places)
        low = -most if lower is None else _round(lower, up=True, places=divisor.places)
        high = most if upper is None else _round(upper, up=False, places=divisor.places)
        tested, pool = float(schema["multipleOf"]), self._pool

        def magnitudes(first: int, last: int) -> Node:
            return start_of(pool, FloatMultiples(tested, divisor.modulus, divisor.places, first, last, zeros))

        return pool.alt(
            (magnitudes(max(low, 0), high), pool.concat(self._minus, magnitudes(max(1, -high), -low)))
        )

    def _whole_with_zeros(self, schema: Mapping[str, Any], pointer: str) -> Node:
        """Integers like ``6.0``, as long as floats are exact."""
        whole = self._integers(schema, pointer, DIGITS)
        return self._pool.sequence(whole, self._pool.literal(b"."), self._zeros(1))

    def _zeros(self, low: int) -> Node:
        return self._pool.repeat(self._pool.literal(b"0"), low, _MORE_ZEROS)

    def _within(self, lower: Bound | None, upper: Bound | None, form: Form | None = None) -> Node:
        form = form or Form()
        parts = []
        if upper is None or upper.value >= 0:
            start = lower if lower is not None and lower.value >= 0 else Bound(Decimal(0), False)
            parts.append(self._magnitude(start, upper, form))
        if lower is None or lower.value < 0:
            start = (
                Bound(-upper.value, upper.strict) if upper and upper.value < 0 else Bound(Decimal(0), True)
            )
            end = None if lower is None else Bound(-lower.value, lower.strict)
            parts.append(self._pool.concat(self._minus, self._magnitude(start, end, form)))
        return self._pool.alt(parts)

    def _free_number(self) -> Node:
        pool = self._pool
        fraction = pool.concat(pool.literal(b"."), self._digits(1, MAX_DIGITS))
        exponent = pool.sequence(
            pool.byte_set(1 << 0x45 | 1 << 0x65),
            pool.optional(pool.strings((b"+", b"-"))),
            self._digits(1, 2),
        )
        return pool.sequence(
            pool.optional(self._minus),
            self._natural(0, None),
            pool.optional(fraction),
            pool.optional(exponent),
        )

    def _digits(self, low: int, high: int) -> Node:
        return self._pool.repeat(self._digit, low, high)

    def _signed_integer(self, low: int | None, high: int | None) -> Node:
        parts = []
        if high is None or high >= 0:
            parts.append(self._natural(max(low or 0, 0), high))
        if low is None or low < 0:
            natural = self._natural(max(1, -high) if high is not None else 1, None if low is None else -low)
            parts.append(self._pool.concat(self._minus, natural))
        return self._pool.alt(parts)

    def _natural(self, low: int, high: int | None) -> Node:
        """An integer from `low` >= 0 to `high`, without leading zeros."""
        if high is not None and high < low:
            return EMPTY
        first, last = str(low), None if high is None else str(high)
        if last is not None and len(first) == len(last):
            return self._between(first, last)
        longest = len(last) - 1 if last is not None else max(MAX_DIGITS, len(first))
        longer = self._pool.concat(self._pool.byte_range(0x31, 0x39), self._digits(len(first), longest - 1))
        parts = [self._between(first, "9" * len(first)), longer]
        if last is not None:
            parts.append(self._between("1" + "0" * (len(last) - 1), last))
        return self._pool.alt(parts)

    def _between(self, first: str, last: str) -> Node:
        """Digit strings from `first` to `last`, which are equally long."""
        size = len(first)
        if first == "0" * size and last == "9" * size:
            return self._digits(size, size)
        low, high = int(first[0]), int(last[0])
        head = self._pool.literal(first[:1].encode())
        if low == high:
            return self._pool.concat(head, self._between(first[1:], last[1:]) if size > 1 else EPSILON)
        if size == 1:
            return self._pool.byte_range(0x30 + low, 0x30 + high)
        parts = [
            self._pool.concat(head, self._between(first[1:], "9" * (size - 1))),
            self._pool.concat(
                self._pool.literal(last[:1].encode()), self._between("0" * (size - 1), last[1:])
            ),
        ]
        if high - low > 1:
            middle = self._pool.byte_range(0x30 + low + 1, 0x30 + high - 1)
            parts.append(self._pool.concat(middle, self._digits(size - 1, size - 1)))
        return self._pool.alt(parts)

    def _magnitude(self, lower: Bound, upper: Bound | None, form: Form) -> Node:
        """A decimal number without sign from `lower` >= 0 to `upper`."""
        if upper is not None and upper.value < lower.value:
            return EMPTY
        low_whole, low_rest = _split(lower.value)
        high_whole, high_rest = (None, "") if upper is None else _split(upper.value)
        at_low, at_high = _Edge(low_rest, lower.strict), _Edge(high_rest, upper is not None and upper.strict)
        if low_whole == high_whole:
            return self._whole_and_fraction(low_whole, low_whole, at_low, at_high, form)
        parts = [self._whole_and_fraction(low_whole, low_whole, at_low, None, form)]
        start, stop = low_whole + 1, None if high_whole is None else high_whole - 1
        for digits in range(len(str(start)), DIGITS):
            end = 10**digits - 1 if stop is None else min(stop, 10**digits - 1)
            if start <= end:
                parts.append(self._whole_and_fraction(start, end, None, None, form))
                start = end + 1
        if not form.has_point:
            parts.append(self._natural(start, stop))
        if high_whole is not None:
            parts.append(self._whole_and_fraction(high_whole, high_whole, None, at_high, form))
        return self._pool.alt(parts)

    def _whole_and_fraction(
        self, low: int, high: int, at_low: _Edge | None, at_high: _Edge | None, form: Form
    ) -> Node:
        """Whole numbers from `low` to `high`, which have equally many digits, and decimals between the edges."""
        places = min(form.places, max(0, DIGITS - len(str(low))))
        fraction = self._pool.concat(self._pool.literal(b"."), self._fraction(at_low, at_high, places, False))
        if not form.has_point and _zero_fits(at_low, at_high):
            fraction = self._pool.optional(fraction)
        return self._pool.concat(self._natural(low, high), fraction)

    def _fraction(self, low: _Edge | None, high: _Edge | None, places: int, may_end: bool) -> Node:
        """Up to `places` digits d such that 0.d is between the edges (None: any)."""
        if low is None and high is None:
            return self._digits(0 if may_end else 1, places)
        ways: dict[tuple[_Edge | None, _Edge | None], int] = {}
        for digit in range(10) if places else ():
            if (low is None or digit >= low.next) and (high is None or digit <= high.next):
                below = low.after() if low and digit == low.next else None
                above = high.after() if high and digit == high.next else None
                ways[below, above] = ways.get((below, above), 0) | 1 << 0x30 + digit
        parts = [
            self._pool.concat(self._pool.byte_set(mask), self._fraction(below, above, places - 1, True))
            for (below, above), mask in ways.items()
        ]
        return self._pool.alt([*parts, EPSILON if may_end and _zero_fits(low, high) else EMPTY])


class _Edge(NamedTuple):
    """The digits after the point of a bound (no zeros at the end), as far as they are still to be compared."""

    digits: str
    strict: bool

    @property
    def next(self) -> int:
        """The digit that is compared next."""
        return int(self.digits[:1] or "0")

    def after(self) -> _Edge:
        """What is still to be compared after an equal digit."""
        return _Edge(self.digits[1:], self.strict)


def _zero_fits(low: _Edge | None, high: _Edge | None) -> bool:
    """Whether a number may stop here: whether all zeros are between the edges."""
    above = low is None or (not low.digits and not low.strict)
    return above and (high is None or bool(high.digits) or not high.strict)


def _split(value: Decimal) -> tuple[int, str]:
    """The whole part, and the digits after the point without zeros at the end."""
    whole, _, rest = f"{value:f}".partition(".")
    return int(whole), rest.rstrip("0")


def _bounds(schema: Mapping[str, Any]) -> tuple[Bound | None, Bound | None]:
    """The tighter lower and the tighter upper bound."""
    lower = [Bound(_exact(schema[key]), key == "exclusiveMinimum") for key in _present(schema, "inimum")]
    upper = [Bound(_exact(schema[key]), key == "exclusiveMaximum") for key in _present(schema, "aximum")]
    return max(lower, default=None), min(
        upper, key=lambda bound: (bound.value, not bound.strict), default=None
    )


def _divisor(value: int | float, pointer: str) -> Divisor:
    """What decimals have to be a multiple of: 0.0025 in 4 places is 25; in 2 places it would be 1."""
    exact = _checked(value, pointer)
    whole, rest = exact.numerator, exact.denominator
    places = next(i for i in range(len(str(rest)) * 4) if 10**i % rest == 0)
    modulus, places = whole * (10**places // rest), places
    if places >= DIGITS:  # so small a digit is not written
        dropped = 10 ** (places - DIGITS + 1)
        modulus, places = modulus // math.gcd(modulus, dropped), DIGITS - 1
    return Divisor(modulus, places)


def _whole_divisor(value: int | float, pointer: str) -> Divisor:
    """What integers have to be a multiple of: 2.5 divides those that 5 divides."""
    return Divisor(_checked(value, pointer).numerator, 0)


def _is_tested(schema: Mapping[str, Any], whole: bool) -> bool:
    """Whether the quotient by `multipleOf` may be rounded to or off an integer; `whole`: that of integers.

    That of an integer is not if the float is off by less than half of what a quotient may be off when it is rounded.
    """
    value = schema.get("multipleOf")
    if not isinstance(value, float) or not 0 < value < math.inf:
        return False
    exact = Fraction(_exact(value))
    off = abs(Fraction(value) - exact) / exact
    return off * 2**54 >= 1 if whole else off > 0


def _checked(value: int | float, pointer: str) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UnsupportedSchemaError("multipleOf", at(pointer, "multipleOf"), "must be a positive number")
    return Fraction(_exact(value))


def _present(schema: Mapping[str, Any], ending: str) -> Iterable[str]:
    return (key for key in ("m" + ending, "exclusiveM" + ending) if key in schema)


def _exact(value: int | float) -> Decimal:
    """A bound as it was written, or, where a float is a whole number, as checkers compare it."""
    return (
        Decimal(repr(value)) if isinstance(value, float) and not value.is_integer() else Decimal(int(value))
    )


def _round(bound: Bound, up: bool, places: int = 0) -> int:
    """The nearest integer on the inner side of a bound times ``10 ** places``."""
    exact: Fraction = Fraction(bound.value) * 10**places
    if up:
        return math.floor(exact) + 1 if bound.strict else math.ceil(exact)
    return math.ceil(exact) - 1 if bound.strict else math.floor(exact)
