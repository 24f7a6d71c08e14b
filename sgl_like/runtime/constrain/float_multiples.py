"""Numbers that are multiples of a float, digit by digit, as Python's ``jsonschema`` tests them.

A checker that computes in floats rounds twice, so of the multiples of 0.01 it refuses some (0.07) and takes others
(0.06). Which ones depends on all digits: a state carries them, and what it needs to know is found by arithmetic.

    number = n / 10**places     to 53 bits: x       allowed if n / 10**places is a multiple of the divisor as it is
    x / divisor                 to 53 bits: q       written, and q is whole, which is to say that q is not rounded off

No number has more than 15 digits, so x is never half way between two floats, and a multiple that is (which is even)
is where a quotient half way goes to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from sgl_like.runtime.constrain.nodes import EMPTY, UNLIMITED, FloatMultiple, Node

if TYPE_CHECKING:
    from sgl_like.runtime.constrain.expr import Pool

__all__ = ["DIGITS", "FloatMultiples", "edges_of", "start_of"]

DIGITS = 15
_TRIES = 8
_BITS = 53
_START = -1  # the value before the first digit


@dataclass(frozen=True)
class FloatMultiples:
    """Numbers ``n / 10**places`` without a sign, ``low <= n <= high``, which are multiples of `divisor`.

    Args:
        divisor: positive; not exactly what its shortest decimal form says.
        modulus: what n has to be a multiple of, so that the number is a multiple of that decimal form.
        places: how many decimals may be other than zero; less where there would be more than 15 digits in all.
        low: >= 0.
        high: not negative if anything is to be allowed.
        zeros: how many zeros may follow that no value needs; 0 with no `places`: no decimals at all.
    """

    divisor: float
    modulus: int
    places: int
    low: int
    high: int
    zeros: int

    def has(self, n: int) -> bool:
        """Whether ``n / 10**places`` is one of them."""
        return self.low <= n <= self.high and not n % self.modulus and self._is_whole(n)

    def _is_whole(self, n: int) -> bool:
        number: float = n / 10**self.places
        quotient = number / self.divisor
        if math.isinf(quotient):
            return (Fraction(number) / Fraction(self.divisor)).denominator == 1
        return quotient.is_integer()

    def has_any(self, first: int, last: int, step: int) -> bool:
        """Whether one of them is n / 10**places for a multiple n of `step` from `first` to `last`, a number that can
        be written with 15 digits.
        """
        step = math.lcm(step, self.modulus)
        first, last = -(-max(first, self.low) // step), min(last, self.high) // step
        if first > last:
            return False
        if any(self._is_whole(i * step) for i in range(first, min(last + 1, first + _TRIES))):
            return True
        return last - first >= _TRIES and self._any_far(first + _TRIES, last, step)

    def _any_far(self, first: int, last: int, step: int) -> bool:
        """`has_any` for the multiples ``step * i``, i > 0 from `first` to `last`, however many they are."""
        number = Fraction(step, 10**self.places)
        quotient = number / Fraction(repr(self.divisor))
        while first <= last:
            size, whole = _exponent(number * first), _exponent(quotient * first)
            if quotient * first == 2**whole:  # below it floats lie closer than above it
                if self._is_whole(step * first):
                    return True
                first += 1
                continue
            if whole >= _BITS - 1:
                return True
            stop = min(math.ceil(2 ** (size + 1) / number), math.ceil(2 ** (whole + 1) / quotient), last + 1)
            scale = Fraction(2) ** (_BITS - 1 - size)
            written, divided = number * scale, quotient * Fraction(self.divisor) * scale
            half = Fraction(2) ** (whole - _BITS) * Fraction(self.divisor) * scale
            if _has_point(first, stop - 1, ((written, Fraction(1, 2)), (divided, half))):
                return True
            first = stop
        return False

    def least(self, value: int, scale: int | None, free: int, fresh: bool) -> int:
        """How many more characters one of them takes at least; `UNLIMITED` if there is none. See `FloatMultiple`."""
        if scale is not None:
            size = 10**scale
            return next(
                (
                    more
                    for more in range(fresh, free + 1)
                    if self.has_any(value * size, (value + 1) * size - 1, 10 ** (scale - more))
                ),
                UNLIMITED,
            )
        unit = 10**self.places
        if value > 0 and self.has(value * unit):
            return 0
        ranges = [
            (digits, low * unit, (high + 1) * unit - 1, min(self.places, DIGITS - max(1, len(str(low)))))
            for digits, low, high in _wholes(value)
            if low * unit <= self.high and (high + 1) * unit > self.low
        ]
        for total in range(DIGITS + 2 + self.places) if ranges else ():
            for digits, low, high, places in ranges:
                decimals = max(0, total - digits - 1)
                if (
                    (decimals or total == digits)
                    and decimals <= places
                    and self.has_any(low, high, 10 ** (self.places - decimals))
                ):
                    return total
        return UNLIMITED


def start_of(pool: Pool, family: FloatMultiples) -> Node:
    """The texts of all of them."""
    return _node(pool, family, _START, None, 0, False)


def edges_of(pool: Pool, node: FloatMultiple) -> list[tuple[int, Node]]:
    """(byte set, what follows), disjoint; what follows may be `EMPTY`."""
    family, value, scale, free = node.family, node.value, node.scale, node.free
    if scale is not None:
        return [
            (1 << 0x30 + digit, _node(pool, family, value * 10 + digit, scale - 1, free - 1, False))
            for digit in range(10)
        ]
    pairs = []
    if value and len(str(value)) < DIGITS:
        first = max(value, 0) * 10
        pairs = [
            (1 << 0x30 + digit, _node(pool, family, first + digit, None, 0, False)) for digit in range(10)
        ]
    if value != _START and (family.places or family.zeros):
        pairs.append((1 << 0x2E, _after_point(pool, family, value)))
    return pairs


def _after_point(pool: Pool, family: FloatMultiples, value: int) -> Node:
    free = min(family.places, DIGITS - len(str(value)))
    if free:
        return _node(pool, family, value, family.places, free, True)
    if not family.has(value * 10**family.places):
        return EMPTY
    return pool.repeat(pool.literal(b"0"), 1, family.zeros)


def _node(pool: Pool, family: FloatMultiples, value: int, scale: int | None, free: int, fresh: bool) -> Node:
    if scale is not None and not free:
        found = family.has(value * 10**scale)
        return pool.repeat(pool.literal(b"0"), 0, family.zeros) if found else EMPTY
    key = (family, value, scale, free, fresh)
    known = pool.known(key)
    if known is not None:
        return known
    needed = family.least(value, scale, free, fresh)
    if needed >= UNLIMITED:
        return EMPTY
    node = FloatMultiple()
    node.family, node.value, node.scale, node.free = family, value, scale, free
    return pool.add(key, node, needed == 0, needed)


def _wholes(value: int) -> Iterator[tuple[int, int, int]]:
    """(how many digits more, from, to) of the whole parts that begin with `value`."""
    if value == 0:
        yield 0, 0, 0
    elif value == _START:
        yield 1, 0, 9
        yield from ((digits, 10 ** (digits - 1), 10**digits - 1) for digits in range(2, DIGITS + 1))
    else:
        for digits in range(DIGITS - len(str(value)) + 1):
            yield digits, value * 10**digits, (value + 1) * 10**digits - 1


def _exponent(value: Fraction) -> int:
    """The power of two at or below a positive value."""
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if Fraction(2) ** guess <= value else guess - 1


def _has_point(first: int, last: int, bands: tuple[tuple[Fraction, Fraction], ...]) -> bool:
    """Whether there are integers X and i, `first` <= i <= `last`, such that |X - slope * i| <= width for all bands
    (slope, width). X is counted between the lowest upper and the highest lower edge, piece by piece.
    """
    for slope, width in bands:  # the lower edge is this band's
        for other, reach in bands:  # the upper edge is that one's
            low, high = first, last
            for steeper, wider in bands:
                low, high = _where(slope - steeper, wider - width, low, high)
                low, high = _where(steeper - other, wider - reach, low, high)
            low, high = _where(other - slope, reach + width, low, high)
            if low <= high:
                count = high - low + 1
                above = _floor_sum(count, other, other * low + reach)
                below = _floor_sum(count, -slope, width - slope * low)
                if above + below + count > 0:
                    return True
    return False


def _where(slope: Fraction, offset: Fraction, low: int, high: int) -> tuple[int, int]:
    """From where to where in `low` to `high` ``slope * i + offset`` is not negative."""
    if slope > 0:
        return max(low, math.ceil(-offset / slope)), high
    if slope < 0:
        return low, min(high, math.floor(offset / -slope))
    return (low, high) if offset >= 0 else (1, 0)


def _floor_sum(count: int, slope: Fraction, offset: Fraction) -> int:
    """The sum of ``floor(slope * i + offset)`` for i from 0 to below `count`, in logarithmic time (as Euclid's)."""
    unit = math.lcm(slope.denominator, offset.denominator)
    rise, start, total = int(slope * unit), int(offset * unit), 0
    while count:
        total += rise // unit * (count * (count - 1) // 2) + start // unit * count
        rise, start = rise % unit, start % unit
        count, start, unit, rise = *divmod(rise * count + start, unit), rise, unit
    return total
