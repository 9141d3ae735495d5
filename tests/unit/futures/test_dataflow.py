"""Futures among a call's arguments: found and replaced at any depth, without running anybody's code."""

from __future__ import annotations

import collections
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioparallel._futures.dataflow import pending_in, substitute
from aioparallel._futures.smart import SmartFuture, failed, finished
from aioparallel._model.errors import NotReadyError


class Point(typing.NamedTuple):
    x: object
    y: object = 0


Pair = collections.namedtuple("Pair", "left right")


def put(value):
    """A call's arguments, with one in each place."""
    return (1, value), {"key": value}


def replaced(value):
    """What a container becomes as an argument."""
    args, kwargs = substitute((value,), {"key": value})
    assert args[0] is kwargs["key"], "a container that occurs twice is one container afterwards"
    return args[0]


class TestFinding:
    @pytest.mark.parametrize(
        "arguments",
        [
            ((), {}),
            ((1, 2.0, "x", b"y", None, True), {"key": 1}),
            (([1, [2, {3: (4,)}]], {5: {6}}), {"key": frozenset({7})}),
            ((Point(1, 2), object(), len), {"key": range(3)}),
        ],
    )
    def test_none(self, arguments):
        """Arguments without futures have none, whatever they are."""
        assert pending_in(*arguments) == []

    @pytest.mark.parametrize(
        "nest",
        [
            lambda f: f,
            lambda f: [f],
            lambda f: (f,),
            lambda f: Point(1, f),
            lambda f: Pair(f, 1),
            lambda f: {"a": f},
            lambda f: {f: "a"},
            lambda f: {(1, f): "a"},
            lambda f: {f},
            lambda f: frozenset({f}),
            lambda f: frozenset({(f, 1)}),
            lambda f: [[[{"a": (1, {2: [f]})}]]],
        ],
    )
    def test_everywhere(self, nest):
        """A future is found in list, tuple, named tuple, dict keys and values, set and frozenset, at any depth."""
        future = finished(1)
        assert pending_in((nest(future),), {}) == [future]
        assert pending_in((), {"key": nest(future)}) == [future]

    def test_each_once(self):
        """A future that occurs several times is found once."""
        future, other = finished(1), finished(2)
        assert pending_in((future, [future, other], {"a": future}), {"key": future}) == [future, other]

    async def test_pending_and_settled(self, work):
        """Pending and settled futures are found alike."""
        job, bad = work(), failed(ValueError())
        assert pending_in((job.future, [bad]), {}) == [job.future, bad]
        bad.exception()
        job.end()

    @pytest.mark.parametrize(
        "kind", [collections.deque, type("List", (list,), {}), type("Tuple", (tuple,), {}), type("Set", (set,), {})]
    )
    def test_not_elsewhere(self, kind):
        """Other containers, subclasses among them, are not looked into."""
        assert pending_in((kind([finished(1)]),), {}) == []

    def test_no_code_of_the_user(self):
        """Looking runs none of the user's code."""

        class Touchy:
            def __getattribute__(self, name):
                raise AssertionError(name)

            def __eq__(self, other):
                raise AssertionError("==")

            def __hash__(self):
                return 1

        future = finished(1)
        arguments = ([Touchy(), future], {Touchy(): Touchy()})
        assert pending_in(arguments, {}) == [future]
        assert substitute(arguments, {})[0][0][1] == 1

    def test_cycles(self):
        """Containers that contain themselves do no harm."""
        cycle: list[object] = [1]
        cycle.append({"me": cycle})
        assert pending_in((cycle,), {}) == []

    def test_depth(self):
        """Very deep nesting does no harm."""
        future = finished(1)
        deep: object = future
        for _ in range(50_000):
            deep = [deep]
        assert pending_in((deep,), {}) == [future]

    def test_shared_containers(self):
        """A container that occurs in many places is looked into once: 2**60 paths do no harm."""
        shared: object = [finished(1)]
        for _ in range(60):
            shared = [shared, shared]
        assert len(pending_in((shared,), {})) == 1


class TestSubstituting:
    @pytest.mark.parametrize(
        ("nest", "expected"),
        [
            (lambda f: f, 7),
            (lambda f: [f, 1], [7, 1]),
            (lambda f: (f,), (7,)),
            (lambda f: Point(1, f), Point(1, 7)),
            (lambda f: Pair(f, 1), Pair(7, 1)),
            (lambda f: {"a": f}, {"a": 7}),
            (lambda f: {f: "a"}, {7: "a"}),
            (lambda f: {(1, f): f}, {(1, 7): 7}),
            (lambda f: {f, 1}, {7, 1}),
            (lambda f: frozenset({(f, 1)}), frozenset({(7, 1)})),
            (lambda f: [[{"a": (1, {2: [f]})}]], [[{"a": (1, {2: [7]})}]]),
            (lambda f: ({(f, frozenset({f})): Point([f], (f,))},), ({(7, frozenset({7})): Point([7], (7,))},)),
        ],
    )
    def test_everywhere(self, nest, expected):
        """Each future is replaced by its value, in a container of the same type."""
        new = replaced(nest(finished(7)))
        assert new == expected
        assert type(new) is type(expected)

    def test_flat(self):
        """Futures among plain arguments are replaced."""
        assert substitute((finished(1), 2), {"key": finished(3), "k": 4}) == ((1, 2), {"key": 3, "k": 4})

    def test_untouched_by_identity(self):
        """Containers without futures are passed on as they are, next to others that are rebuilt."""
        plain, mixed = [1, [2]], [finished(1)]
        args, kwargs = substitute((plain, mixed, [plain, mixed]), {"key": plain})
        assert args[0] is plain
        assert kwargs["key"] is plain
        assert args[2] == [plain, [1]]
        assert args[2][0] is plain
        assert args[2][1] is args[1]

    def test_callers_containers_are_not_changed(self):
        """What the caller passed is left as it was."""
        future = finished(1)
        mine, keyed = [future], {"a": future}
        substitute((mine, keyed), {})
        assert mine == [future]
        assert keyed == {"a": future}

    def test_arguments_without_futures(self):
        """Arguments without futures are returned as they are."""
        args, kwargs = (1, [2]), {"key": {3}}
        new_args, new_kwargs = substitute(args, kwargs)
        assert new_args is args
        assert new_kwargs is kwargs

    def test_cycle(self):
        """A container that contains itself, through whatever, does so afterwards."""
        cycle: list[object] = [finished(1)]
        cycle.append((cycle, {"me": cycle}))
        new = replaced(cycle)
        assert new[0] == 1
        assert new[1][0] is new
        assert new[1][1]["me"] is new

    def test_depth(self):
        """Very deep nesting does no harm."""
        for wrap in (lambda x: [x], lambda x: (x,), lambda x: {"a": (x,)}):
            deep: object = finished("here")
            for _ in range(5_000):
                deep = wrap(deep)
            found = replaced(deep)
            for _ in range(5_000):
                found = found["a"][0] if isinstance(found, dict) else found[0]
            assert found == "here"

    def test_order_of_a_dict(self):
        """A dict keeps its order."""
        assert list(replaced({"b": finished(1), "a": 2, finished("c"): 3})) == ["b", "a", "c"]

    def test_value_is_not_looked_into(self):
        """A value is passed on as it is, even if it contains futures."""
        inner = [finished(1)]
        assert replaced([finished(inner)])[0] is inner

    def test_unhashable_value(self):
        """A value that cannot be where the future was is a TypeError."""
        with pytest.raises(TypeError, match="unhashable"):
            substitute(({finished([])},), {})

    def test_failed(self):
        """A failed future raises what it raised."""
        with pytest.raises(LookupError, match="no"):
            substitute(([failed(LookupError("no"))],), {})

    async def test_pending(self, work):
        """A pending future raises NotReadyError."""
        job = work()
        with pytest.raises(NotReadyError):
            substitute((job.future,), {})
        job.end()


leaves = st.one_of(st.integers(0, 9), st.text(max_size=1), st.none())
hashables = st.one_of(leaves, st.tuples(leaves, leaves), st.frozensets(st.tuples(leaves), max_size=3))
nested = st.recursive(
    hashables,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.builds(Point, inner, inner),
        st.dictionaries(hashables, inner, max_size=3),
        st.sets(hashables, max_size=3),
    ),
    max_leaves=20,
)


def with_futures(value, which):
    """The same containers, with some leaves turned into finished futures."""
    if isinstance(value, Point):
        return Point(*[with_futures(item, which) for item in value])
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(with_futures(item, which) for item in value)
    if isinstance(value, dict):
        return {with_futures(key, which): with_futures(item, which) for key, item in value.items()}
    return finished(value) if next(which) else value


@given(nested, st.data())
def test_round_trip(value, data):
    """Whatever leaves of whatever containers are futures, the arguments come out as if they had been values."""
    which = iter(lambda: data.draw(st.booleans()), None)
    mixed = with_futures(value, which)
    assert substitute((mixed,), {"key": mixed}) == ((value,), {"key": value})
    assert all(type(future) is SmartFuture for future in pending_in((mixed,), {}))
