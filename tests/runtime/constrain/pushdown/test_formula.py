"""Equal formulas are one object, also after those that nobody holds were forgotten."""

from __future__ import annotations

import gc

from sgl_like.runtime.constrain.pushdown.formula import FALSE, Formulas, Leaf


def test_what_is_held_stays_the_same_and_the_rest_goes() -> None:
    formulas = Formulas()
    a, b, c = (formulas.leaf(name, Leaf) for name in "abc")
    both = formulas.all_of([a, formulas.negate(b)])
    formulas.any_of([a, c])
    assert len(formulas) == 6
    del c
    formulas.loosen()
    gc.collect()
    formulas.tighten()
    assert len(formulas) == 4  # a, b, its negation, and both
    assert formulas.leaf("a", Leaf) is a
    assert formulas.all_of([formulas.negate(b), a]) is both
    assert formulas.all_of([formulas.leaf("b", Leaf), formulas.negate(b)]) is FALSE
    assert formulas.leaf("c", Leaf).serial > both.serial
