"""distribute: functions of single values that take whole sequences."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, get_type_hints

import numpy as np
import pytest

from aioparallel import ThreadExecutor, configure, distribute
from tests.unit.verbs import mapjobs
from tests.unit.verbs.mapjobs import Service

pytestmark = pytest.mark.timeout(60)


# As its users wrote it


async def test_element_by_element() -> None:
    """Positional sequences are distributed, keyword arguments are constants; the list is in input order."""
    assert await mapjobs.score(range(1000), range(4000, 2000, -2)) == [4000 - x for x in range(1000)]
    assert await mapjobs.score([1, 2], [3, 4], verbose=True) == [-4, -6]


async def test_any_number_of_sequences() -> None:
    """A function of ``*args`` takes as many sequences as one likes."""
    assert await mapjobs.pairs([1, 2], [3, 4], [5, 6]) == [(1, 3, 5), (2, 4, 6)]


async def test_names_and_data_of_a_dict() -> None:
    """``bytes`` and ``str`` are elements: dict views are distributed item by item, not in batches."""
    store = {f"{n}.bin": bytes([n]) for n in range(20)}
    results = await mapjobs.save(store.values(), store.keys(), verbose=False)
    assert results == [(bytes([n]), f"{n}.bin", False) for n in range(20)]


async def test_web_requests_of_a_plain_function_run_in_threads() -> None:
    """``job="web"`` runs a plain function in threads, at the same time, and mappings are elements."""
    results = await mapjobs.request([{"n": n} for n in range(12)], url="https://here", api_key="***")
    assert [result[:2] for result in results] == [(n, "https://here") for n in range(12)]
    assert all(result[2] != threading.current_thread().name for result in results)


async def test_web_requests_of_a_coroutine_function() -> None:
    """``job="web"`` runs ``async def`` as coroutines, so many at a time, inside a running event loop."""
    assert await mapjobs.request_async([{"n": n} for n in range(9)], url="u") == [(n, "u") for n in range(9)]


async def test_web_is_concurrent() -> None:
    """Six requests of a plain function by six workers are under way at the same time."""
    meeting = threading.Barrier(6)

    @distribute(job="web", workers=6)
    def meet(timeout: float) -> int:
        return meeting.wait(timeout)

    assert sorted(await meet([20] * 6)) == list(range(6))


@pytest.mark.parametrize("items", [1, 5, 40])
async def test_compute(items: int) -> None:
    """``job="compute"`` runs in processes, also when there are fewer items than workers."""
    results = await mapjobs.where(range(items))
    assert [x for x, _ in results] == list(range(items))
    assert all(pid != __import__("os").getpid() for _, pid in results)


async def test_fewer_items_than_workers() -> None:
    """No result is lost when there are fewer items, or batches, than workers."""
    assert await mapjobs.score([1, 2, 3, 4, 5], [1] * 5) == [2, 3, 4, 5, 6]
    assert [x for batch in await mapjobs.total(range(3)) for x in batch] == [0, 1, 2]


async def test_without_type_hints() -> None:
    """Type hints are optional; so are the decorator's parentheses."""
    results = await mapjobs.anything([1, "two", None])
    assert [x for x, _ in results] == [1, "two", None]


# Batches


async def test_sequences_are_cut_into_aligned_batches() -> None:
    """If every distributed parameter takes containers, equal sequences are cut into batches, one result for each."""
    batches = await mapjobs.zipped(range(100), list(range(100, 200)))
    assert [pair for batch in batches for pair in batch] == [(x, x + 100) for x in range(100)]
    assert 1 < len(batches) < 100
    assert max(map(len, batches)) - min(map(len, batches)) <= 1, "balanced"


async def test_hints_in_any_legal_form() -> None:
    """``list[int]``, ``Optional[...]`` and strings are hints like any other."""
    assert sum(await mapjobs.optional(range(50))) == 50
    batches = await mapjobs.total(range(50))
    assert [x for batch in batches for x in batch] == list(range(50))


async def test_batches_are_of_the_hinted_kind() -> None:
    """A batch is a list, unless the hint names another kind of container; an array stays an array."""
    assert all(isinstance(batch, list) for batch in await mapjobs.total(range(10)))
    assert set().union(*await mapjobs.unordered(range(10))) == set(range(10))

    @distribute(job="io")
    def shape(x: np.ndarray) -> tuple[int, ...]:
        return x.shape

    shapes = await shape(np.zeros((10, 3)))
    assert sum(rows for rows, _ in shapes) == 10


async def test_nested_data_is_not_batched_again() -> None:
    """What is nested already is taken as it is: its elements are the batches."""
    assert await mapjobs.total([[1, 2], [3]]) == [[1, 2], [3]]
    assert await mapjobs.zipped([[1, 2], [3]], [[4, 5], [6]]) == [[(1, 4), (2, 5)], [(3, 6)]]
    assert sum(await mapjobs.matrix([[1, 2], [3, 4], [5, 6]])) == 3, "rows of a matrix are its elements"


async def test_batches_by_hand() -> None:
    """Without autobatch elements are passed as they are, whatever the hints say."""
    assert await mapjobs.by_hand([[1, 2], [3]], [[4, 5], [6]]) == [14, 18]
    with pytest.raises(TypeError, match="not iterable"):
        await mapjobs.by_hand([1, 2], [3, 4])


# Pairs of different lengths


async def test_each_element_of_the_short_goes_with_a_run_of_the_long() -> None:
    """With mixed hints each element of the shorter sequence goes with its run of the longer; scalars stay scalars."""
    assert await mapjobs.iterables(range(6), range(3)) == [([0, 1], 0), ([2, 3], 1), ([4, 5], 2)]
    results = await mapjobs.powers(list(range(1000)), range(100), verbose=False)
    assert len(results) == 100
    assert results[7] == (list(range(70, 80)), 7)


async def test_equal_lengths_with_mixed_hints() -> None:
    """At equal lengths each element goes with a run of one; nested data is taken as it is."""
    assert await mapjobs.powers([1, 2], [3, 4]) == [([1], 3), ([2], 4)]
    assert await mapjobs.powers([[1, 2], [3]], [3, 4]) == [([1, 2], 3), ([3], 4)]


@pytest.mark.parametrize(
    ("call", "lengths"),
    [
        (lambda: mapjobs.score([1, 2, 3, 4], [1, 2]), r"\[4, 2\]"),
        (lambda: mapjobs.powers([1, 2, 3], [1, 2]), r"\[3, 2\]"),
        (lambda: mapjobs.powers([1, 2], [1, 2, 3, 4]), r"\[2, 4\]"),
        (lambda: mapjobs.pairs(range(6), range(5), range(2)), r"\[6, 5, 2\]"),
        (lambda: mapjobs.by_hand([1, 2], [1]), r"\[2, 1\]"),
        (lambda: mapjobs.powers([1, 2], []), r"\[2, 0\]"),
        (lambda: mapjobs.score([1] * 100, "constant"), "constants go by keyword"),
    ],
    ids=range(7),
)
async def test_lengths_that_do_not_fit(call: Any, lengths: str) -> None:
    """Other lengths are a ValueError that names them; nothing is cut off silently."""
    with pytest.raises(ValueError, match=lengths):
        await call()


# Inputs


async def test_generators_and_other_inputs_without_a_length() -> None:
    """Inputs without a length are read to their end, sync or async."""

    async def later() -> AsyncIterator[int]:
        for x in range(5):
            yield x

    assert await mapjobs.score((x for x in range(5)), later()) == [0, 2, 4, 6, 8]


async def test_generator_that_blocks_does_not_block_the_loop() -> None:
    """While a generator waits, the event loop goes on."""
    gate = threading.Event()

    def slow() -> Iterator[int]:
        gate.wait(20)
        yield 1

    call = asyncio.ensure_future(mapjobs.score(slow(), [2]))
    for _ in range(5):
        await asyncio.sleep(0)
    gate.set()
    assert await call == [3]


async def test_empty_input() -> None:
    """Nothing in, nothing out."""
    assert await mapjobs.score([], []) == []
    assert await mapjobs.total([]) == []
    assert await mapjobs.powers([], []) == []


async def test_nothing_to_distribute() -> None:
    """A call without sequences, or with something that is none, says what to do."""
    with pytest.raises(TypeError, match="nothing to distribute"):
        await mapjobs.score(x=1, y=2)
    with pytest.raises(TypeError, match=r"argument 1 .*constant by keyword"):
        await mapjobs.score([1, 2], 3)


async def test_error_in_a_call() -> None:
    """The first failure is raised, with its index."""
    with pytest.raises(LookupError) as caught:
        await mapjobs.fail(range(10))
    assert caught.value.seq_index == 3  # type: ignore[attr-defined]


# The decorator


@pytest.mark.parametrize(
    "job", ["compute", "processes", "io", "threads", "web", "coroutines", "ray", "cluster", "remote", "ssh"]
)
def test_jobs_and_their_aliases(job: str) -> None:
    """Every job has an alias."""
    assert callable(distribute(job=job)(abs))


async def test_job_whose_executor_is_missing() -> None:
    """A job that needs an extra, or hosts, says so when it is called."""
    if __import__("importlib.util").util.find_spec("ray") is None:
        with pytest.raises(ModuleNotFoundError, match=r"aioparallel\[ray\]"):
            await distribute(job="ray", workers=4)(abs)([1])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"job": "magic"}, ValueError),
        ({"workers": 0}, ValueError),
        ({"workers": 1.5}, ValueError),
        ({"colour": 1}, TypeError),
    ],
    ids=str,
)
def test_wrong_options_fail_when_decorating(options: dict[str, Any], error: type[Exception]) -> None:
    """A wrong option is refused when the function is decorated, not when it is called."""
    with pytest.raises(error, match=next(iter(options))):
        distribute(**options)
    with pytest.raises(TypeError, match="functions"):
        distribute(job="io")(5)  # type: ignore[arg-type]


def test_functions_that_do_not_fit_fail_when_decorating() -> None:
    """A coroutine function in threads, and a generator function, are refused at once, with what to write instead."""

    async def fetch(url: str) -> str:
        return url

    def count(n: int) -> Iterator[int]:
        yield n

    with pytest.raises(TypeError, match=r"@distribute\(job='web'\)"):
        distribute(job="io")(fetch)
    with pytest.raises(TypeError, match="return a list"):
        distribute(count)


def test_nothing_is_measured_when_decorating(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``workers`` the CPUs are counted at the call, not when decorating; and they are never none."""
    counted: list[int] = []

    def available_cpus() -> int:
        counted.append(1)
        return 1

    monkeypatch.setattr("aioparallel._verbs.distribute.available_cpus", available_cpus)
    total = distribute(job="io")(mapjobs.total._fn)
    assert not counted
    assert asyncio.run(total(range(4))) == [[0], [1], [2], [3]]
    assert counted


async def test_methods() -> None:
    """A method's object is not distributed; and a decorated method can be looked up on the class."""
    assert await Service(10).add([1, 2, 3]) == [11, 12, 13]
    assert await Service.name_and([1, 2]) == await Service(10).name_and([1, 2]) == ["Service 1", "Service 2"]
    assert "distributed" in repr(Service.add)


def test_signature() -> None:
    """The signature says that sequences go in and a list comes out; constants stay as they are."""
    signature = inspect.signature(mapjobs.score)
    annotations = {name: each.annotation for name, each in signature.parameters.items()}
    assert annotations["x"] == annotations["y"] == Sequence[int]
    assert annotations["verbose"] in {bool, "bool"}
    assert signature.return_annotation == list[int]
    assert inspect.signature(mapjobs.pairs).parameters["args"].annotation == Sequence[int]
    assert inspect.signature(mapjobs.anything).return_annotation == list[Any]
    assert list(inspect.signature(Service(1).add).parameters) == ["x"]


def test_identity() -> None:
    """A distributed function keeps its name, its documentation and what it wraps."""

    def documented(x: int) -> int:
        """What it does."""
        return x

    decorated = distribute(job="io")(documented)
    assert (decorated.__name__, decorated.__doc__) == ("documented", "What it does.")
    assert decorated.__wrapped__ is documented  # type: ignore[attr-defined]
    assert get_type_hints(decorated.__wrapped__) == {"x": int, "return": int}  # type: ignore[attr-defined]


async def test_ambient_executor() -> None:
    """Without ``workers`` the ambient executor is used."""
    async with configure(thread=ThreadExecutor(2, name="mine")) as configuration:
        assert await mapjobs.pairs([1, 2, 3]) == [(1,), (2,), (3,)]
        (pool,) = configuration.opened
        assert pool.status().done == 3


def test_as_a_program() -> None:
    """A call is a coroutine, so it can be run as a program."""
    assert asyncio.run(mapjobs.score([1], [2])) == [3]
