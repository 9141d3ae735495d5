"""The portal: who enters and leaves, what happens on its loop, and how it ends."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator

import pytest

from aioparallel import CallCancelledError, ExecutorClosedError, NotReadyError
from aioparallel._futures.patience import hastened
from aioparallel.blocking import portal as portals
from aioparallel.blocking.portal import Portal, enter, shared
from tests.tools import wait_for

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="nobody")


async def nothing(finish: bool = True) -> None:
    """What a guest does at the end of the program."""


async def for_ever() -> None:
    await asyncio.Event().wait()


def portal_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "aioparallel portal"]


@pytest.fixture
def portal() -> Iterator[Portal]:
    entered = enter("the test", nothing)
    yield entered
    entered.leave("the test")


def test_the_last_one_ends_it() -> None:
    """The portal is one thread for everybody inside, and ends when the last one leaves."""
    one, two = enter("one", nothing), enter("two", nothing)
    assert one is two is shared()
    assert len(portal_threads()) == 1
    one.leave("one")
    one.leave("one")
    assert shared() is two, "leaving twice counts once"
    two.leave("two")
    assert shared() is None
    assert not portal_threads()
    assert two.loop.is_closed()


def test_a_new_one_after_the_end(portal: Portal) -> None:
    """Who enters when the portal is closing gets another one."""
    gate = threading.Event()
    portal.post(gate.wait)
    portal.leave("the test", wait=False)
    other = enter("other", nothing)
    assert other is not portal
    assert other.do(int, "3") == 3
    gate.set()
    other.leave("other")
    wait_for(lambda: not portal_threads())


def test_a_portal_of_ones_own(portal: Portal) -> None:
    """A guest may have a portal that nobody else gets, which ends when it leaves."""
    own = enter("guest", nothing, alone=True)
    assert own is not portal
    assert enter("another", nothing) is portal
    portal.leave("another")
    own.leave("guest")
    assert own.loop.is_closed()
    assert not portal.loop.is_closed()


def test_do(portal: Portal) -> None:
    """``do`` returns what the function returned on the loop's thread, or raises what it raised."""
    assert portal.do(threading.get_ident) != threading.get_ident()
    assert portal.do(lambda: portal.is_here)
    with pytest.raises(ZeroDivisionError):
        portal.do(lambda: 1 // 0)
    assert portal.do(lambda: portal.do(int, "7")) == 7, "it is there already"


def test_run(portal: Portal) -> None:
    """``run`` returns what the coroutine gives, or raises what it raises."""

    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    async def fail() -> None:
        raise LookupError("no luck")

    assert portal.run(lambda: double(21)) == 42
    with pytest.raises(LookupError, match="no luck"):
        portal.run(fail)


def test_run_sees_the_callers_context(portal: Portal) -> None:
    """What runs on the loop sees the context variables of who asked for it, and changes them for nobody."""

    async def look() -> str:
        seen = WHO.get()
        WHO.set("changed")
        return seen

    token = WHO.set("the caller")
    assert portal.run(look) == "the caller"
    assert WHO.get() == "the caller"
    WHO.reset(token)
    assert portal.run(look) == "nobody"


def test_run_cannot_be_made(portal: Portal) -> None:
    """If what is to be awaited cannot even be made, ``run`` raises that."""
    with pytest.raises(ZeroDivisionError):
        portal.run(lambda: 1 // 0)  # type: ignore[arg-type,return-value]


def test_run_with_a_timeout(portal: Portal) -> None:
    """When time is up, what runs is cancelled, and has ended when ``TimeoutError`` is raised."""
    ended = []

    async def linger() -> None:
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with pytest.raises(TimeoutError):
        portal.run(linger, 0.01)
    assert ended


def test_run_would_wait_for_itself(portal: Portal) -> None:
    """On the portal's own thread ``run`` raises instead of waiting for ever, and says what to do."""
    with pytest.raises(NotReadyError, match=r"would be for ever.*await"):
        portal.do(lambda: portal.run(nothing))


def test_its_end_is_told_to_who_waits() -> None:
    """Who waits for something on a loop that ends is told so."""
    portal = enter("the test", nothing)
    waiting = threading.Event()
    errors: list[BaseException] = []

    async def linger() -> None:
        waiting.set()
        await for_ever()

    def wait() -> None:
        try:
            portal.run(linger)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait(20)
    portal.leave("the test")
    thread.join(20)
    assert len(errors) == 1
    with pytest.raises(ExecutorClosedError):
        portal.do(int)
    with pytest.raises(ExecutorClosedError):
        portal.run(nothing)
    assert not portal.post(int)


def test_what_was_posted_and_never_ran() -> None:
    """Who has posted something that the loop did not come to is told that it ended."""
    portal = enter("the test", nothing)
    gate = threading.Event()
    portal.post(gate.wait)
    portal.leave("the test", wait=False)
    answers: list[BaseException | int] = []

    def ask() -> None:
        try:
            answers.append(portal.do(int, "1"))
        except ExecutorClosedError as error:
            answers.append(error)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(20)
    assert len(answers) == 20


def test_the_end_of_the_program(portal: Portal) -> None:
    """At the end of the program everybody inside is asked to finish, also who comes meanwhile, and the portal ends."""
    order: list[str] = []

    async def first(finish: bool) -> None:
        assert finish
        order.append("first")
        enter("second", second)

    async def second(finish: bool) -> None:
        assert finish
        await asyncio.sleep(0)
        order.append("second")

    async def fail(finish: bool) -> None:
        raise LookupError("it goes on nevertheless")

    enter("first", first)
    enter("failing", fail)
    portal.end()
    wait_for(portal.loop.is_closed)
    assert order == ["first", "second"]
    assert shared() is None


def interruption(times: int) -> KeyboardInterrupt:
    """What Ctrl-C raises when it is pressed so often, each while the one before is handled."""
    error = KeyboardInterrupt()
    if times > 1:
        error.__context__ = interruption(times - 1)
    return error


def test_the_end_of_an_interrupted_program(portal: Portal) -> None:
    """When Ctrl-C has ended the program, everybody inside is asked to stop instead."""
    asked: list[bool] = []

    async def stop(finish: bool) -> None:
        asked.append(finish)

    enter("guest", stop)
    portal.end(interruption(1))
    wait_for(portal.loop.is_closed)
    assert asked == [False]


def test_the_end_of_a_program_interrupted_twice(portal: Portal) -> None:
    """When a second Ctrl-C has ended it, nobody is asked any more: whatever is left is cancelled, and hastened."""
    told: list[str] = []

    async def stop(finish: bool) -> None:
        told.append("asked")

    async def linger() -> None:
        try:
            await for_ever()
        except asyncio.CancelledError:
            with hastened(lambda: told.append("hastened")):
                raise

    def wait() -> None:
        with pytest.raises((CallCancelledError, ExecutorClosedError)):
            portal.run(linger)
        told.append("cancelled")

    enter("guest", stop)
    thread = threading.Thread(target=wait)
    thread.start()
    wait_for(lambda: bool(portal._asked))
    portal.end(interruption(2))
    thread.join(20)
    wait_for(portal.loop.is_closed)
    assert told == ["hastened", "cancelled"]


def test_helpers_go_on_at_the_end(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop finds names and reads files in threads also when the standard library's pools have been shut down."""
    from concurrent.futures import ThreadPoolExecutor, thread

    async def look() -> tuple[int, str]:
        loop = asyncio.get_running_loop()
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 / 0)
        return await loop.run_in_executor(None, abs, -1), (await loop.getaddrinfo("127.0.0.1", 1))[0][4][0]

    monkeypatch.setattr(thread, "_shutdown", True)
    with pytest.raises(RuntimeError, match="after interpreter shutdown"):
        ThreadPoolExecutor().submit(abs, -1)
    assert portal.run(look) == (1, "127.0.0.1")


def test_nothing_starts_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the main thread has ended no portal is opened any more."""
    monkeypatch.setattr(portals._process, "ended", True)
    with pytest.raises(ExecutorClosedError, match="the main thread has ended"):
        enter("late", nothing)


def test_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system has no thread for it, entering raises that, and nothing is left."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        enter("the test", nothing)
    assert shared() is None


def test_repr(portal: Portal) -> None:
    """It says how it stands."""
    assert repr(portal) == "<portal, open, 1 inside>"
