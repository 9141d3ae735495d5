"""Expressions over futures, compared with the :mod:`operator` module, and questions about the value."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import fractions
import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioparallel._futures.operators import Operators
from aioparallel._futures.smart import SmartFuture, failed, finished
from aioparallel._model.errors import NotReadyError

F = finished

REFLECTED = [
    "add",
    "sub",
    "mul",
    "matmul",
    "truediv",
    "floordiv",
    "mod",
    "lshift",
    "rshift",
    "and_",
    "or_",
    "xor",
    "pow",
]
ORDERING = ["lt", "le", "gt", "ge"]
UNARY = ["neg", "pos", "abs", "invert"]
BINARY = {name: getattr(operator, name) for name in [*REFLECTED, *ORDERING, "getitem"]} | {"divmod": divmod}

# What the operator module offers beyond that, and why a future does not compute it.
IDENTITY = {"eq", "ne", "is_", "is_not", "is_none", "is_not_none"}
ANSWERED = {"truth", "not_", "contains", "index", "length_hint", "countOf", "indexOf"}
NO_EXPRESSION = {"setitem", "delitem", "attrgetter", "itemgetter", "methodcaller", "call", "concat"}


def dunder(name: str) -> str:
    return f"__{name.strip('_')}__"


def outcome(compute):
    """What a computation gives, in a form that can be compared."""
    try:
        value = compute()
    except Exception as error:
        return type(error), str(error)
    return type(value), repr(value)


class TestTable:
    def test_is_complete(self):
        """Every operator of Python is an expression, or is absent for a reason."""
        in_place = {"i" + name.rstrip("_") for name in REFLECTED} | {"iconcat"}
        operators = set(operator.__all__) - IDENTITY - ANSWERED - NO_EXPRESSION - in_place | {"divmod"}
        operators = {"invert" if name == "inv" else name for name in operators}
        assert operators == {*BINARY, *UNARY}

    @pytest.mark.parametrize("name", [*BINARY, *UNARY, "round"])
    def test_is_installed(self, name):
        """Each of them is in the table, under the name that Python calls."""
        assert dunder(name) in vars(Operators)

    @pytest.mark.parametrize("name", [*REFLECTED, "divmod"])
    def test_reflections(self, name):
        """Each arithmetic or bitwise operator has its reflection."""
        assert f"__r{name.strip('_')}__" in vars(Operators)

    def test_identity_is_not_in_it(self):
        """== and hash stay those of any object."""
        assert SmartFuture.__eq__ is object.__eq__
        assert SmartFuture.__hash__ is object.__hash__


numbers = st.one_of(st.integers(-20, 20), st.booleans(), st.floats(-9, 9), st.fractions(-5, 5, max_denominator=9))
values = st.one_of(
    numbers, st.text("abc%", max_size=3), st.lists(st.integers(0, 3), max_size=3), st.sets(st.integers(0, 3)), st.none()
)


class TestEqualsTheOperatorModule:
    @given(st.sampled_from(sorted(BINARY)), values, values)
    def test_binary(self, name, left, right):
        """A finished operand on either side or both gives what the values would give, errors included."""
        compute = BINARY[name]
        expected = outcome(lambda: compute(left, right))
        assert outcome(lambda: compute(F(left), F(right)).result()) == expected
        assert outcome(lambda: compute(F(left), right).result()) == expected
        if name in REFLECTED or name == "divmod":
            reflected = outcome(lambda: result_of(compute(left, F(right))))
            # Where the left operand itself takes anything, the future is not asked.
            greedy = (name, type(left)) in {("mod", str), ("pow", fractions.Fraction)}
            assert greedy or reflected == expected

    @given(st.sampled_from(UNARY), values)
    def test_unary(self, name, value):
        """Unary operators give what the value would give, errors included."""
        compute = getattr(operator, name)
        assert outcome(lambda: compute(F(value)).result()) == outcome(lambda: compute(value))

    @given(numbers, numbers, st.sampled_from(ORDERING))
    def test_ordering_reflected(self, left, right, name):
        """3 < fut asks fut > 3, and that is the same."""
        compute = getattr(operator, name)
        assert compute(left, F(right)).result() == compute(left, right)

    @given(st.floats(-99, 99), st.one_of(st.none(), st.integers(-2, 5)))
    def test_round(self, value, digits):
        """round works with and without digits."""
        assert outcome(lambda: round(F(value), digits).result()) == outcome(lambda: round(value, digits))
        assert outcome(lambda: round(F(value)).result()) == outcome(lambda: round(value))

    @given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 50))
    def test_pow_with_modulus(self, base, exponent, modulus):
        """pow works with a modulus, which may be a future as well."""
        expected = pow(base, exponent, modulus)
        assert pow(F(base), exponent, modulus).result() == expected
        assert pow(F(base), F(exponent), F(modulus)).result() == expected

    @given(st.sampled_from(sorted(BINARY)), values, values)
    def test_pending_operands(self, name, left, right):
        """Operands that are still to come give the same as finished ones."""

        async def main():
            loop = asyncio.get_running_loop()
            one, two = SmartFuture(None, loop), SmartFuture(None, loop)
            total = BINARY[name](one, two)
            assert not total.done()
            two._set_result(right)
            assert not total.done()
            one._set_result(left)
            await asyncio.wait([total])
            return total

        total = asyncio.run(main())
        assert outcome(total.result) == outcome(lambda: BINARY[name](left, right))


def result_of(value):
    return value.result() if isinstance(value, SmartFuture) else value


class TestPythonsOrder:
    async def test_examples(self):
        """The operands keep the order in which they stand in the source."""
        assert await ("a" + F("b")) == "ab"
        assert await (F("a") + "b") == "ab"
        assert await (10 - F(5)) == 5
        assert await (2 * F(5)) == 10
        assert await (F(5) % 2) == 1
        assert await (7 // F(2)) == 3
        assert await (2 ** F(3)) == 8
        assert await (-F(5)) == -5
        assert await (F(7) & 3) == 3
        assert await (F(4) | 3) == 7
        assert await (F(5) ^ 1) == 4
        assert await (1 << F(3)) == 8
        assert await F([1, 2])[0] == 1
        assert await F({"k": 1})["k"] == 1
        assert await F([1, 2, 3])[F(1)] == 2
        assert await F([1, 2, 3])[1:] == [2, 3]
        assert await divmod(7, F(2)) == (3, 1)
        assert await ([1] * F(2)) == [1, 1]
        assert await ([1] + F([2])) == [1, 2]  # noqa: RUF005 - the very operator
        assert await ({1} | F({2})) == {1, 2}
        assert await (fractions.Fraction(1, 2) + F(1)) == fractions.Fraction(3, 2)
        assert await (decimal.Decimal(1) - F(2)) == -1
        assert await (dt.timedelta(1) * F(2)) == dt.timedelta(2)
        assert await (F(1) < 2)
        assert await (1 < F(2))  # noqa: SIM300 - the very order
        assert not await (1 > F(2))  # noqa: SIM300 - the very order

    async def test_augmented_assignment(self):
        """Augmented assignment makes an expression."""
        total = F(1)
        total += 2
        total *= F(3)
        assert await total == 9

    async def test_sum(self):
        """sum works."""
        assert await sum([F(1), F(2), F(3)]) == 6


class TestExpressions:
    async def test_nested(self, work):
        """An expression over futures is a future, at any depth."""
        one, two = work(), work()
        total = one.future + two.future * 2
        assert isinstance(total, SmartFuture)
        loop = asyncio.get_running_loop()
        loop.call_soon(two.end, 4)
        loop.call_soon(one.end, 1)
        assert await total == 9

    async def test_finished_operands_are_computed_at_once(self):
        """Operands that are all finished are computed at once."""
        assert (F(1) + F(2)).done()
        assert (F(1) + 2).result() == 3

    async def test_failed_operand(self, complaints):
        """An operand that has failed fails the expression at once, and one look is enough."""
        error = ValueError("no")
        bad = failed(error)
        total = 1 + bad
        assert total.done()
        assert total.exception() is error
        del bad, total
        assert complaints() == []

    async def test_failing_operation(self):
        """What the operator raises is raised by the expression, not where it is written."""
        total = F(1) / 0
        with pytest.raises(ZeroDivisionError):
            await total

    async def test_no_task(self, work):
        """An expression needs no task."""
        before = asyncio.all_tasks()
        total = work().future + 1
        assert asyncio.all_tasks() == before
        total.cancel()

    async def test_not_within_the_settling_call(self, work):
        """The operator runs in a later turn of the loop, not inside the executor that settles the operand."""
        job = work()
        total = job.future + 1
        job.end(1)
        assert not total.done()
        assert await total == 2

    async def test_long_chain(self, work):
        """A sum of thousands needs no deep stack."""
        job = work()
        total = job.future
        for _ in range(5000):
            total = total + 1
        job.end(0)
        assert await total == 5000

    async def test_repr(self, work):
        """An expression's repr names the operator."""
        job = work()
        assert repr(job.future + 1).endswith(" add: waiting>")
        assert repr(job.future | 1).endswith(" or: waiting>")
        job.end()


class TestNumpy:
    async def test_one_future(self, work):
        """ndarray + fut is one future, not an array of futures."""
        array, job = np.arange(3), work()
        totals = [
            array + job.future,
            job.future + array,
            np.float64(2) * job.future,
            array @ job.future,
            array < job.future,
        ]
        assert all(type(total) is SmartFuture for total in totals)
        job.end(np.ones(3))
        assert (await totals[0]).tolist() == [1, 2, 3]
        assert (await totals[1]).tolist() == [1, 2, 3]
        assert (await totals[2]).tolist() == [2, 2, 2]
        assert await totals[3] == 3
        assert (await totals[4]).tolist() == [True, False, False]

    async def test_equality(self, work):
        """Also for an array, == with a future is identity."""
        job = work()
        assert (np.arange(3) == job.future) is False
        job.end()


QUESTIONS = {
    "bool": (bool, 0, False),
    "int": (int, "12", 12),
    "float": (float, "1.5", 1.5),
    "complex": (complex, 2, 2 + 0j),
    "len": (len, [1, 2], 2),
    "iter": (list, (1, 2), [1, 2]),
    "next": (lambda f: next(iter(f)), [4], 4),
    "unpacking": (lambda f: [*f], {5: 6}, [5]),
    "reversed": (lambda f: list(reversed(f)), [1, 2], [2, 1]),
    "in": (lambda f: 2 in f, [1, 2], True),
    "not in": (lambda f: 3 in f, [1, 2], False),
    "str": (str, "a", "a"),
    "format": (lambda f: f"{f:03d}", 7, "007"),
    "f-string": (lambda f: f"{f}", "a", "a"),
    "index": (lambda f: [5, 6][f], 1, 6),
    "range": (lambda f: list(range(f)), 2, [0, 1]),
    "math.sqrt": (math.sqrt, 4, 2.0),
    "bytes": (bytes, [1, 2], b"\x01\x02"),
    "and": (lambda f: f and 1, 0, None),
    "if": (lambda f: "yes" if f else "no", [], "no"),
}


@pytest.mark.parametrize("name", sorted(QUESTIONS))
class TestQuestions:
    def test_finished(self, name):
        """bool, int, float, complex, len, iter, in, format, str, index and bytes give the finished value's."""
        ask, value, expected = QUESTIONS[name]
        future = F(value)
        assert ask(future) == (future if expected is None else expected)

    async def test_pending(self, name, work):
        """Before the end they raise NotReadyError, which says: await it first."""
        job = work()
        with pytest.raises(NotReadyError, match="await it first"):
            QUESTIONS[name][0](job.future)
        job.end()

    def test_failed(self, name):
        """For a failed future they raise what it raised."""
        with pytest.raises(LookupError, match="no"):
            QUESTIONS[name][0](failed(LookupError("no")))
