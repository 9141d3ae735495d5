"""A worker and its promises, over a socket pair."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from aioparallel._child import wire, worker
from aioparallel._child.current import current
from aioparallel._child.page import CANCELLED, OUTBOX, TAKEN_BACK
from aioparallel._child.wire import CALL, FRAME, OK, RAISED, WITHDRAWN, ProtocolError
from aioparallel._child.worker import RECEIVE, is_coroutine
from aioparallel._model.errors import CallExitedError, PicklingError
from tests.tools import wait_for
from tests.unit.child.peer import SECONDS, Peer, read_answers

log: list[Any] = []
gates: dict[str, threading.Event] = {}


@pytest.fixture
def peer(folder: str) -> Iterator[Peer]:
    log.clear()
    gates.clear()
    gates.update(begun=threading.Event(), go_on=threading.Event())
    found = Peer(folder)
    yield found
    gates["go_on"].set()
    found.close()


def echo(*args: Any, **kwargs: Any) -> Any:
    log.append((args, kwargs))
    return args, kwargs


def hold(value: Any = None) -> Any:
    """Runs until the test lets it end."""
    gates["begun"].set()
    assert gates["go_on"].wait(SECONDS)
    return value


def keep(array: Any) -> Any:
    log.append(array)
    return [int(kept[0]) for kept in log]


def make(size: int, value: int) -> Any:
    return np.full(size, value, np.uint8)


def text(size: int) -> str:
    return "x" * size


def leave(code: object) -> None:
    sys.exit(code)


def interrupt() -> None:
    raise KeyboardInterrupt


def fail(message: str) -> None:
    raise ValueError(message)


def lock() -> Any:
    return {"inner": [threading.Lock()]}


class Nasty:
    """Every way of looking at it raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __reduce__(self) -> Any:
        raise SystemExit("not me")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def nasty() -> Any:
    return [Nasty()]


class Anything:
    """Has every attribute, as remote proxies do."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__await__":
            raise AttributeError(name)
        return self

    def __reduce__(self) -> Any:
        return Anything, ()


def anything() -> Any:
    return Anything()


class Interrupting:
    """Interrupts who unpickles it."""

    def __reduce__(self) -> Any:
        return interrupt, ()


def who() -> Any:
    call = current.get()
    assert call is not None
    return call.id, call.name, call.attempt, call.worker_index, call.host, call.is_cancelled()


def hold_and_tell() -> Any:
    hold()
    return who()


async def wait_a_turn(value: Any) -> Any:
    import asyncio

    await asyncio.sleep(0)
    return value


def numbers(most: int) -> Iterator[int]:
    yield from range(most)


# Calls and answers


def test_results(peer: Peer) -> None:
    """A call's result comes back under its number, with what it took."""
    peer.call(5, echo, 1, "two", three=3)
    assert peer.answer() == (5, pytest.approx(0, abs=1e6), OK, ((1, "two"), {"three": 3}))


def test_calls_without_arguments(peer: Peer) -> None:
    """A call without arguments needs no payload."""
    peer.call(1, echo)
    assert peer.answer().value == ((), {})


def test_a_frame_of_calls(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short calls that came in one frame are answered in one frame, in order."""
    monkeypatch.setattr(worker, "PATIENCE", SECONDS)  # a busy machine makes short calls long
    function = peer.teach(echo)
    peer.send(wire.CALLS, b"".join(peer.record(number, function, number) for number in range(1, 101)))
    answers = peer.answers()
    assert [answer.number for answer in answers] == list(range(1, 101))
    assert [answer.value[0] for answer in answers] == [(number,) for number in range(1, 101)]


def test_frames_come_in_pieces(peer: Peer) -> None:
    """Frames may arrive in any pieces."""
    function = peer.teach(echo)
    records = peer.record(1, function, 1)
    frame = FRAME.pack(len(records), wire.CALLS) + records
    for index in range(len(frame)):
        peer.socket.sendall(frame[index : index + 1])
    assert peer.answer().number == 1
    peer.socket.sendall(frame * 5)
    assert [peer.answer().number for _ in range(5)] == [1] * 5


@pytest.mark.parametrize("size", [10_000, wire.OUT_OF_BAND, 200_000, RECEIVE - 100, RECEIVE, RECEIVE + 100, 3_000_000])
def test_frames_of_any_size(peer: Peer, size: int) -> None:
    """Arguments and results of every size arrive, in a row."""
    for number in (1, 2, 3):
        peer.call(number, echo, "x" * size, number)
        assert peer.answer().value == (("x" * size, number), {})


def test_the_page_says_what_runs(peer: Peer) -> None:
    """While a call runs its number is on the page, and none is when there is nothing to do."""
    peer.call(7, hold)
    gates["begun"].wait(SECONDS)
    assert peer.page.running()[0] == 7
    gates["go_on"].set()
    peer.answer()
    wait_for(lambda: peer.page.running()[0] == 0)


def test_answers_are_safe_before_the_next_call(peer: Peer) -> None:
    """While a call runs, the answers of those before it have been sent, or are in the outbox."""
    short, long = peer.teach(echo), peer.teach(hold)
    peer.send(wire.CALLS, peer.record(1, short, "kept") + peer.record(2, short) + peer.record(3, long))
    gates["begun"].wait(SECONDS)
    kept = read_answers(peer.page.unsent())
    if [answer.number for answer in kept] != [1, 2]:
        kept = peer.answers() + kept  # on a slow day some were sent already
    assert [answer.number for answer in kept] == [1, 2]
    assert kept[0].value == (("kept",), {})
    gates["go_on"].set()
    assert peer.answers()[-1].number == 3


def test_old_answers_do_not_wait(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that have waited for a millisecond are sent before the next call begins."""
    function = peer.teach(echo)
    peer.send(wire.CALLS, peer.record(1, function))  # afterwards it is loaded, which is not the call's own time
    peer.answer()
    now = iter(range(1000))
    monkeypatch.setattr(worker, "monotonic", lambda: next(now) * 0.6 * worker.PATIENCE)
    short, long = peer.teach(echo), peer.teach(hold)
    records = [peer.record(number, short, number) for number in (1, 2, 3, 4)]
    peer.send(wire.CALLS, b"".join([*records, peer.record(5, long)]))
    gates["begun"].wait(SECONDS)
    sent = [answer.number for answer in peer.answers()]
    assert sent == [1, 2, 3]
    assert [answer.number for answer in read_answers(peer.page.unsent())] == [4]
    gates["go_on"].set()
    assert [answer.number for answer in peer.answers()] == [4, 5]


def test_long_calls_can_be_answered(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call may take days."""
    function = peer.teach(echo)
    peer.send(wire.CALLS, peer.record(1, function))  # afterwards it is loaded, which is not the call's own time
    peer.answer()
    now = iter(range(1000))
    monkeypatch.setattr(worker, "monotonic", lambda: next(now) * 3 * 86400.0)
    peer.send(wire.CALLS, peer.record(2, function))
    assert peer.answer().micros == 3 * 86400 * 10**6


def test_withdrawn_calls(peer: Peer) -> None:
    """A call whose flag is up never begins, and is given back in its turn."""
    function, blocked = peer.teach(echo), peer.teach(hold)
    peer.send(wire.CALLS, peer.record(1, blocked) + b"".join(peer.record(n, function, n) for n in (2, 3, 4)))
    gates["begun"].wait(SECONDS)
    peer.page.flag(3, TAKEN_BACK)
    gates["go_on"].set()
    answers: list[Any] = []
    while len(answers) < 4:
        answers += peer.answers()
    assert [(answer.number, answer.ending) for answer in answers] == [(1, OK), (2, OK), (3, WITHDRAWN), (4, OK)]
    assert log == [((2,), {}), ((4,), {})]


def test_calls_know_themselves(peer: Peer) -> None:
    """A call knows its id, name, attempt and worker, and whether its flag is up."""
    peer.call(9, who)
    assert peer.answer().value == (1009, "who", 1, 3, None, False)
    peer.call(10, hold_and_tell)
    gates["begun"].wait(SECONDS)
    peer.page.flag(10, CANCELLED)
    gates["go_on"].set()
    assert peer.answer().value == (1010, "hold_and_tell", 1, 3, None, True)


# Arrays


@pytest.mark.parametrize("size", [wire.OUT_OF_BAND, 100_000, RECEIVE - 1000, RECEIVE + 1000, 2_000_000])
def test_arrays_are_the_calls_own(peer: Peer, size: int) -> None:
    """An array that a function keeps does not change when the next ones arrive."""
    for number in (1, 2, 3):
        peer.call_with_buffers(number, keep, np.full(size, number, np.uint8))
        assert peer.answer().value == list(range(1, number + 1))
    assert all(array.flags.writeable for array in log)


def test_arrays_are_aligned(peer: Peer) -> None:
    """An array lies in memory as its type needs it, although what comes before it is of any length."""
    for number, size in enumerate((20_000, 50_000, 1_000_000), start=1):
        peer.call_with_buffers(number, keep, np.zeros(size, np.complex128))
        peer.answer()
    assert all(array.flags.aligned for array in log)


@pytest.mark.parametrize("size", [1000, wire.OUT_OF_BAND, 2_000_000])
def test_arrays_return(peer: Peer, size: int) -> None:
    """Arrays come back beside the pickle, after what was answered before."""
    function, quick = peer.teach(make), peer.teach(echo)
    peer.send(wire.CALLS, peer.record(1, quick) + peer.record(2, function, size, 7) + peer.record(3, quick))
    answers: list[Any] = []
    while len(answers) < 3:
        answers += peer.answers()
    assert [answer.number for answer in answers] == [1, 2, 3]
    assert (answers[1].value == np.full(size, 7, np.uint8)).all()


@pytest.mark.parametrize("size", [OUTBOX - 200, OUTBOX, OUTBOX + 1, 3 * OUTBOX])
def test_large_results(peer: Peer, size: int) -> None:
    """Results that do not fit the outbox are sent at once, in order."""
    function, quick = peer.teach(text), peer.teach(echo)
    peer.send(wire.CALLS, peer.record(1, quick) + peer.record(2, function, size) + peer.record(3, quick))
    answers: list[Any] = []
    while len(answers) < 3:
        answers += peer.answers()
    assert [answer.number for answer in answers] == [1, 2, 3]
    assert len(answers[1].value) == size


# Failures


def test_exceptions(peer: Peer) -> None:
    """What a call raises is its answer."""
    peer.call(1, fail, "no")
    answer = peer.answer()
    assert (answer.ending, type(answer.value), answer.value.args) == (RAISED, ValueError, ("no",))


@pytest.mark.parametrize("code", [0, 3, "bye"])
def test_exits(peer: Peer, code: object) -> None:
    """``sys.exit`` ends the call, and the worker goes on."""
    peer.call(1, leave, code)
    error = peer.answer().value
    assert type(error) is CallExitedError
    assert error.code == code
    peer.call(2, echo, "alive")
    assert peer.answer().value == (("alive",), {})


@pytest.mark.parametrize("args", [(interrupt,), (echo, Interrupting())])
def test_interrupts(peer: Peer, args: tuple[Any, ...]) -> None:
    """A ``KeyboardInterrupt`` in a call, or in unpickling its arguments, does not end the worker."""
    peer.call(1, *args)
    assert peer.answer().ending == RAISED
    peer.call(2, echo)
    assert peer.answer().ending == OK


def test_unpicklable_results(peer: Peer) -> None:
    """A result that cannot travel fails its call and names the path to the culprit."""
    peer.call(1, lock)
    error = peer.answer().value
    assert type(error) is PicklingError
    assert error.path == "the result of lock['inner'][0]"


def test_nasty_results(peer: Peer) -> None:
    """A result that resists pickling by all means does not end the worker."""
    peer.call(1, nasty)
    error = peer.answer().value
    assert (type(error), error.path, error.culprit) == (PicklingError, "the result of nasty[0]", "<Nasty>")
    peer.call(2, echo)
    assert peer.answer().ending == OK


def test_results_that_have_every_attribute(peer: Peer) -> None:
    """A proxy that answers to any name is a result, not a coroutine."""
    peer.call(1, anything)
    assert type(peer.answer().value) is Anything


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (b"not a pickle", "UnpicklingError"),
        (
            pickle.dumps(("reference", "no_such_module", "f", 0)),
            "ModuleNotFoundError: No module named 'no_such_module'",
        ),
        (pickle.dumps(("reference", "math", "no_such_name", 0)), "AttributeError"),
        (pickle.dumps(("value", b"garbage")), "UnpicklingError"),
    ],
)
def test_unloadable_functions(peer: Peer, packed: bytes, reason: str) -> None:
    """A function that cannot be rebuilt fails the call that needs it, each time."""
    function = peer.teach_packed("broken", packed)
    for number in (1, 2):
        peer.send(wire.CALLS, peer.record(number, function))
        error = peer.answer().value
        assert type(error) is PicklingError
        assert str(error).startswith("the function broken cannot be rebuilt in the worker: ")
        assert reason in str(error)


def test_unloadable_arguments(peer: Peer) -> None:
    """Arguments that cannot be rebuilt fail their call."""
    function = peer.teach(echo)
    peer.send(wire.CALLS, CALL.pack(1, 1, function, 1, wire.RUN, 0, 3) + b"\x80\x05x")
    error = peer.answer().value
    assert str(error).startswith("the arguments of echo cannot be rebuilt in the worker: ")


def test_unknown_functions(peer: Peer) -> None:
    """A call of a function that was never sent, or was forgotten, fails."""
    function = peer.teach(echo)
    peer.send(wire.CALLS, peer.record(1, function))
    assert peer.answer().ending == OK
    peer.send(wire.FORGET)
    peer.send(wire.CALLS, peer.record(2, function))
    assert "it was not taught" in str(peer.answer().value)


# Coroutines, streams, threads


def test_coroutines(peer: Peer) -> None:
    """A coroutine function's result is what its coroutine returns."""
    peer.call(1, wait_a_turn, "done")
    assert peer.answer().value == "done"


@pytest.mark.parametrize(
    ("make", "answer"), [(lambda: wait_a_turn(1), True), (lambda: numbers(1), False), (Anything, False), (int, False)]
)
def test_what_is_a_coroutine(make: Callable[[], Any], answer: bool) -> None:
    """Only what is awaited and sent to by its type is run as a coroutine."""
    value = make()
    assert is_coroutine(value) is answer
    if answer:
        value.close()


def test_streams(peer: Peer) -> None:
    """A generator lives in the worker between the calls that advance it."""
    function = peer.teach(numbers)
    peer.send(wire.CALLS, peer.record(1, function, 100, verb=wire.STREAM_OPEN))
    items, ended, _ = peer.answer().value
    peer.send(wire.CALLS, peer.record(2, function, 1001, verb=wire.STREAM_NEXT))
    more, _, _ = peer.answer().value
    assert not ended
    assert (items + more)[:70] == list(range(70))
    peer.send(wire.CALLS, peer.record(3, function, 1001, verb=wire.STREAM_CLOSE))
    assert peer.answer().value is None


def test_threads(peer: Peer) -> None:
    """A worker with threads runs calls at the same time, says what each runs, and answers each at once."""
    peer.worker._start_threads(2)
    quick, slow = peer.teach(echo), peer.teach(hold)
    peer.send(wire.CALLS, peer.record(1, slow) + peer.record(2, quick, "meanwhile") + peer.record(3, quick))
    assert [peer.answer().number for _ in range(2)] == [2, 3]
    assert 1 in peer.page.all_running(2)
    gates["go_on"].set()
    assert peer.answer().number == 1


def test_threads_forget(peer: Peer) -> None:
    """Calls that wait for a thread keep their functions when the worker is told to forget all that it was taught."""
    peer.worker._start_threads(1)
    peer.call(1, hold)
    assert gates["begun"].wait(SECONDS)
    waits = peer.teach(echo)
    peer.send(wire.CALLS, peer.record(2, waits, "loaded late"))
    peer.send(wire.FORGET)
    peer.send(wire.CALLS, peer.record(3, waits))
    wait_for(lambda: peer.worker._queue.qsize() == 2)
    assert not peer.worker.functions
    gates["go_on"].set()
    assert [peer.answer().value for _ in range(2)] == [None, (("loaded late",), {})]
    assert "it was not taught" in str(peer.answer().value)


def test_threads_keep_arrays(peer: Peer) -> None:
    """Arrays of calls that wait for a thread are their own, and may be written to."""
    peer.worker._start_threads(1)
    peer.call(1, hold)
    for number, size in ((2, wire.OUT_OF_BAND), (3, wire.OUT_OF_BAND), (4, 2_000_000)):
        peer.call_with_buffers(number, keep, np.full(size, number, np.uint8))
    gates["go_on"].set()
    assert [peer.answer().number for _ in range(4)] == [1, 2, 3, 4]
    assert [int(array[0]) for array in log] == [2, 3, 4]
    assert all(array.flags.writeable for array in log)


# The life of a worker


def test_setup(peer: Peer) -> None:
    """A worker that was set up says that it is ready."""
    peer.send(wire.SETUP, pickle.dumps(setup(preload=("json",), initializer=reference(echo))))
    assert peer.frame() == (wire.READY, b"")
    assert log == [((), {})]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"preload": ("no_such_module",)}, "No module named 'no_such_module'"),
        ({"initializer": lambda: reference(interrupt)}, "KeyboardInterrupt"),
        ({"initializer": lambda: reference(leave)}, "TypeError"),
    ],
)
def test_failing_setup(peer: Peer, changes: dict[str, Any], reason: str) -> None:
    """A worker that cannot be set up says why, and ends."""
    changes = {name: value() if callable(value) else value for name, value in changes.items()}
    peer.send(wire.SETUP, pickle.dumps(setup(**changes)))
    kind, text = peer.frame()
    assert kind == wire.UNREADY
    assert reason in text.decode()
    assert peer.frame() == (0, b"")
    assert peer.error is None


def setup(**changes: Any) -> dict[str, Any]:
    plain = {"path": list(sys.path), "argv": list(sys.argv), "host": None, "max_memory": None, "levels": {}}
    return {**plain, "preload": (), "initializer": None, "threads": 1, **changes}


def reference(fn: Any) -> bytes:
    return pickle.dumps(("reference", fn.__module__, fn.__qualname__, 0))


def test_farewell(peer: Peer) -> None:
    """A worker that is told so ends, after what it was sent before."""
    peer.call(1, echo)
    peer.send(wire.BYE)
    assert peer.answer().number == 1
    assert peer.frame() == (0, b"")
    assert peer.error is None


@pytest.mark.parametrize("rest", [b"", b"\x05\x00", FRAME.pack(10, wire.CALLS) + b"half"])
def test_the_executor_goes_away(peer: Peer, rest: bytes) -> None:
    """A worker ends when its executor is gone, be it in the middle of a frame."""
    peer.socket.sendall(rest)
    peer.socket.shutdown(1)
    peer.thread.join(SECONDS)
    assert peer.error is None


def test_the_executor_goes_away_in_a_large_frame(peer: Peer) -> None:
    """A large frame that is cut is an end of the connection, not a call."""
    peer.socket.sendall(FRAME.pack(10 * RECEIVE, wire.CALLS) + b"half")
    peer.socket.shutdown(1)
    peer.thread.join(SECONDS)
    assert isinstance(peer.error, ConnectionError)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (FRAME.pack(0, 99), "a frame of kind 99"),
        (FRAME.pack(wire.MAX_FRAME + 1, wire.CALLS), f"a frame of {wire.MAX_FRAME + 1} bytes"),
    ],
)
def test_refused_frames(peer: Peer, frame: bytes, said: str) -> None:
    """A worker believes no frame of an unknown kind, and none that is too long."""
    peer.socket.sendall(frame)
    peer.thread.join(SECONDS)
    assert isinstance(peer.error, ProtocolError)
    assert str(peer.error) == said


def test_memory_limit(peer: Peer) -> None:
    """A worker that has grown beyond its limit says so once, after its answer."""
    peer.send(wire.SETUP, pickle.dumps(setup(max_memory=1)))
    assert peer.frame() == (wire.READY, b"")
    peer.worker._logs = None
    for number in (1, 2):
        peer.call(number, echo)
    kinds = [peer.frame()[0] for _ in range(3)]
    assert kinds == [wire.ANSWERS, wire.FULL, wire.ANSWERS]
