"""The worker: one process that runs the calls it is sent, one after the other.

It is forked by the agent, connects back to the pool, and lives until it is told to end or
is killed. It promises, for the sake of exact blame (see :mod:`.page`):

1. the number of a call is on the page before anything of that call happens;
2. the answers of earlier calls are in the outbox, or sent, before the next number is;
3. a call whose flag is up when its number is written never begins.

Answers are gathered while calls are short, and sent at the end of a frame, or as soon as
the oldest is ``PATIENCE`` seconds old, before the next call begins.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock
from time import monotonic

from . import chunks, failures, packing, stacks, wire
from .current import Current, current
from .lean import SimpleQueue, pickle, socket
from .logs import Logs
from .memory import mapped, room
from .page import CANCELLED, OUTBOX, Page
from .streams import Streams, start_thread
from .wire import ANSWER, CALL, FRAME, OK, RAISED, WITHDRAWN, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn

    Record = tuple[int, int, "Taught | None", int, int, memoryview, list[memoryview]]
    """Number, id, function (if it is known), attempt, verb, payload, buffers."""

PATIENCE = 0.001
CHUNKS = (wire.CHUNK, wire.CHUNK_TO_FAILURE)
RECEIVE = 256 * 1024


class Link:
    """The worker's end of its socket."""

    def __init__(self, path: str, token: bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, wire.SOCKET_BUFFER)
        self.socket.connect(path)
        self._buffer = bytearray(RECEIVE)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._sending = allocate_lock()
        self.socket.sendall(token)

    def frames(self) -> Iterator[tuple[int, memoryview]]:
        """Frames as they arrive; a body is only good until the next one is asked for, unless arrays may live in it."""
        while True:
            if not self._fill(FRAME.size):
                return
            length, kind = FRAME.unpack_from(self._buffer, self._start)
            self._start += FRAME.size
            if length > wire.MAX_FRAME:
                raise ProtocolError(f"a frame of {length} bytes")
            if length > RECEIVE:
                yield kind, self._receive_big(length)
                continue
            if not self._fill(length):
                return
            body = self._view[self._start : self._start + length]
            self._start += length
            yield kind, memoryview(bytearray(body)) if length > wire.OUT_OF_BAND else body

    def send(self, kind: int, *parts: bytes | memoryview) -> None:
        """Send one frame; any thread may."""
        with self._sending:
            self.socket.sendall(FRAME.pack(sum(map(len, parts)), kind) + (bytes(parts[0]) if parts else b""))
            for part in parts[1:]:
                self.socket.sendall(part)

    def send_framed(self, frame: memoryview) -> None:
        """Send what has its header already."""
        with self._sending:
            self.socket.sendall(frame)

    def _fill(self, wanted: int) -> bool:
        """Have so many bytes in the buffer; ``False`` when the other side is gone."""
        while self._end - self._start < wanted:
            if self._start + wanted > RECEIVE or self._start == self._end:
                rest = self._buffer[self._start : self._end]
                self._buffer[: len(rest)] = rest
                self._start, self._end = 0, len(rest)
            received = self.socket.recv_into(self._view[self._end :])
            if not received:
                return False
            self._end += received
        return True

    def _receive_big(self, length: int) -> memoryview:
        """A frame that does not fit the buffer gets memory of its own, which its arrays then share."""
        body = room(length)
        have = self._end - self._start
        body[:have] = self._view[self._start : self._end]
        self._start = self._end = 0
        while have < length:
            received = self.socket.recv_into(body[have:])
            if not received:
                raise ConnectionError("the executor is gone")
            have += received
        return body


class Outbox:
    """Gathers answers where a kill cannot lose them, and sends them."""

    def __init__(self, link: Link, page: Page) -> None:
        self._link = link
        self._page = page
        self._box = page.box
        self._length = 0
        self._oldest = 0.0

    def add(self, answer: bytes, now: float) -> None:
        """Keep an answer of a call that has ended."""
        end = self._length + len(answer)
        if end > OUTBOX:
            self.flush()
            end = len(answer)
            if end > OUTBOX:
                self._link.send(wire.ANSWERS, answer)
                return
        if not self._length:
            self._oldest = now
        self._box[self._length : end] = answer
        self._page.commit(end)
        self._length = end

    def flush_if_old(self, now: float) -> None:
        """Send what has waited long enough; the next call may take its time."""
        if self._length and now - self._oldest > PATIENCE:
            self.flush()

    def flush(self) -> None:
        """Send everything. A kill in between leaves answers twice, never not at all."""
        if self._length:
            FRAME.pack_into(self._page.framed_box, 0, self._length, wire.ANSWERS)
            self._link.send_framed(self._page.framed_box[: FRAME.size + self._length])
            self._page.commit(0)
            self._length = 0

    def send_big(self, head: bytes, payload: bytes, buffers: list[memoryview]) -> None:
        """Send an answer with buffers, after what was gathered before."""
        self.flush()
        self._link.send(wire.ANSWERS, *wire.with_buffers(head, payload, buffers))


class Taught:
    """A function as it was taught: its pickle, until the first call loads it, so that its failure is that call's.

    Calls hold it from when they are read, so those that wait for a thread keep theirs when functions are forgotten.
    """

    __slots__ = ("fn", "name")

    def __init__(self, name: str, packed: bytes) -> None:
        self.name = name
        self.fn: Any = packed


class Worker:
    """Runs calls.

    Args:
        link: Where they come from.
        page: Where it says what it does.
        index: Its place in the pool.
        folder: The pool's private folder.
        serial: What its agent calls it by.
    """

    def __init__(self, link: Link, page: Page, index: int, folder: str = "", serial: int = 0) -> None:
        self.link = link
        self.page = page
        self.index = index
        self._folder = folder
        self._serial = serial
        self.host: str | None = None
        self.outbox = Outbox(link, page)
        self.streams = Streams()
        self.functions: dict[int, Taught] = {}
        self._queue: SimpleQueue[Record] = SimpleQueue()
        self._logs: Logs | None = None
        self._max_memory: int | None = None
        self._threaded = False
        self._is_copy = False

    # Life

    def forked(self) -> None:
        """We are not the worker any more, but a copy that a call has forked."""
        self._is_copy = True

    def serve(self) -> None:
        """Take frames until there are no more."""
        for kind, body in self.link.frames():
            if kind == wire.CALLS:
                self._run_calls(body)
            elif kind == wire.FUNCTIONS:
                self._learn(body)
            elif kind == wire.SETUP:
                if not self._set_up(pickle.loads(body)):
                    return
            elif kind == wire.FORGET:
                self.functions.clear()
            elif kind == wire.BYE:
                return
            else:
                raise ProtocolError(f"a frame of kind {kind}")

    def _set_up(self, setup: dict[str, Any]) -> bool:
        try:
            self.host = setup["host"]
            if setup["path"] is not None:
                sys.path[:] = setup["path"]
            else:  # that of another machine, which knows what is in its modules
                from . import imports, questions

                self._ask = questions.Asker(self._folder, self._serial)
                imports.install(self._ask_in_call, self.host)
            sys.argv[:] = setup["argv"]
            self._max_memory = setup["max_memory"]
            self._logs = Logs(setup["levels"], lambda packed: self.link.send(wire.LOG, packed))
            for module in setup["preload"]:
                __import__(module)
            current.set(Current(0, "the initializer", 1, self.index, self.host, lambda: False))
            if setup["initializer"] is not None:
                load_function(setup["initializer"])()
            self._warm_up()
        except BaseException as error:
            self.link.send(wire.UNREADY, failures.text(error).encode(errors="replace"))
            return False
        if setup["threads"] > 1:
            self._start_threads(setup["threads"])
        self.link.send(wire.READY)
        return True

    def _warm_up(self) -> None:
        """Load what was taught before the first call, as the one that is replaced has done: its calls wait for that."""
        for taught in self.functions.values():
            try:
                taught.fn = load_function(taught.fn)
            except Exception:  # it is told to the call that needs it
                pass

    def _ask_in_call(self, name: str, send: bool) -> dict[str, Any]:
        """Ask what a module is. It takes as long as the way to the executor is: that is not the call's own time."""
        paused = not self._threaded and self.page.pause(monotonic())
        try:
            return self._ask(name, send)
        finally:
            if paused:
                self.page.resume(monotonic())

    def _load_function(self, packed: bytes) -> Callable[..., Any]:
        """Load a function. Imports may take long, and are not the call's own time."""
        paused = not self._threaded and self.page.pause(monotonic())
        try:
            fn: Callable[..., Any] = load_function(packed)
            return fn
        finally:
            if paused:
                self.page.resume(monotonic())

    def _start_threads(self, count: int) -> None:
        self.streams.loop.share()
        self._threaded = True
        for thread in range(count):
            start_thread(self._serve_thread, thread)

    def _learn(self, body: memoryview) -> None:
        """Keep a function's pickle."""
        number, length = wire.FUNCTION.unpack_from(body)
        start = wire.FUNCTION.size
        name = str(body[start : start + length], "utf-8")
        self.functions[number] = Taught(name, bytes(body[start + length :]))

    # Calls

    def _records(self, body: memoryview) -> Iterator[Record]:
        position = 0
        size = CALL.size
        while position < len(body):
            number, id, function, attempt, verb, count, length = CALL.unpack_from(body, position)
            position += size
            payload = body[position : position + length]
            position += length
            buffers: list[memoryview] = []
            if count:
                buffers = wire.read_buffers(body, position, count)
                position = len(body)
            yield number, id, self.functions.get(function), attempt, verb, payload, buffers

    def _run_calls(self, body: memoryview) -> None:
        if self._threaded:
            for record in self._records(memoryview(bytes(body)) if len(body) <= wire.OUT_OF_BAND else body):
                self._queue.put(record)
            return
        outbox, page, flags, flag_count = self.outbox, self.page, self.page.flags, len(self.page.flags)
        now = monotonic()
        for record in self._records(body):
            number = record[0]
            outbox.flush_if_old(now)
            if page.begin(number, now):
                flags[number % flag_count] = 0
                outbox.add(ANSWER.pack(number, 0, WITHDRAWN, 0, 0), now)
                continue
            ending, payload, buffers = self._run(record)
            if self._is_copy:
                leave()
            flags[number % flag_count] = 0
            then = monotonic()
            head = ANSWER.pack(number, int((then - now) * 1e6), ending, len(buffers), len(payload))
            if buffers:
                outbox.send_big(head, payload, buffers)
            else:
                outbox.add(head + payload, then)
            now = then
        page.end()
        outbox.flush()
        self._check_memory()

    def _check_memory(self) -> None:
        """Between calls: say that this worker has grown too large, and should be replaced."""
        if self._max_memory is not None and memory_of("self") > self._max_memory:
            self._max_memory = None
            self.link.send(wire.FULL)

    def _serve_thread(self, thread: int) -> None:
        """One of several threads that take calls; each answer is sent at once."""
        while True:
            record = self._queue.get()
            number, now = record[0], monotonic()
            withdrawn = self.page.begin(number, now, thread)
            ending, payload, buffers = (WITHDRAWN, b"", []) if withdrawn else self._run(record)
            if self._is_copy:
                leave()
            self.page.flag(number, 0)
            head = ANSWER.pack(number, int((monotonic() - now) * 1e6), ending, len(buffers), len(payload))
            self.link.send(wire.ANSWERS, *wire.with_buffers(head, payload, buffers))
            self.page.end(thread)
            self._check_memory()

    def _run(self, record: Record) -> tuple[int, bytes, list[memoryview]]:
        """Run one call; whatever it does, short of ending the process, becomes an answer."""
        number, id, taught, attempt, verb, payload, buffers = record
        name = "?" if taught is None else taught.name
        flags, flag = self.page.flags, number % len(self.page.flags)
        current.set(Current(id, name, attempt, self.index, self.host, lambda: flags[flag] == CANCELLED))
        try:
            fn, args, kwargs = self._load(taught, payload, buffers, name)
        except _Unloadable as error:
            return RAISED, error.packed, []
        if self._logs is not None and not self._logs.installed:
            self._logs.install()
        try:
            if verb == wire.RUN:
                value = fn(*args, **kwargs)
                if is_coroutine(value):
                    value = self.streams.loop.run(value, name)
            elif verb in CHUNKS:
                value = chunks.run(fn, args, self.page, number, verb == wire.CHUNK_TO_FAILURE)
            else:
                value = self.streams.step(verb, id, fn, args, kwargs)
        except BaseException as error:
            return RAISED, failures.pack(error), []
        return self._pack(value, name)

    def _load(
        self, taught: Taught | None, payload: memoryview, buffers: list[memoryview], name: str
    ) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        what = f"the function {name}"
        try:
            if taught is None:
                raise LookupError("it was not taught")
            fn = taught.fn
            if type(fn) is bytes:
                fn = taught.fn = self._load_function(fn)
            what = f"the arguments of {name}"
            args, kwargs = packing.loads_arguments(payload, buffers)
        except BaseException as error:
            raise _Unloadable(failures.pack_unloadable(error, what)) from error
        return fn, args, kwargs

    def _pack(self, value: Any, name: str) -> tuple[int, bytes, list[memoryview]]:
        buffers: list[memoryview] = []
        try:
            return OK, packing.dumps_result(value, buffers), buffers
        except BaseException as error:
            problem = packing.explain(value, error, f"the result of {name}", packing.dumps_by_value)
            return RAISED, failures.pack(problem), []


class _Unloadable(Exception):
    def __init__(self, packed: bytes) -> None:
        super().__init__(packed)
        self.packed = packed


def leave() -> NoReturn:
    """End a forked copy of a worker that comes back from its call: it must not speak for the worker."""
    os.write(2, b"A child that a call had forked came back from that call, and was ended; use os._exit in it.\n")
    os._exit(1)


def memory_of(pid: int | str) -> int:
    """The memory that a process has now, in bytes; where that is not known, what this one had at most."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if pid == "self" else 0


def is_coroutine(value: Any) -> bool:
    """Whether a function returned something to be run; asked of its type, for some objects answer to any name."""
    return hasattr(type(value), "__await__") and hasattr(type(value), "send")


def load_function(pickled: bytes) -> Any:
    """A function from what :mod:`aioparallel._workers.shipping` made of it."""
    how, *what = pickle.loads(pickled)
    if how == "map":
        function, star, kwstar, constants, shared = what
        buffers = [] if shared is None else mapped(*shared)
        return chunks.bind(load_function(function), star, kwstar, *packing.loads_arguments(constants, buffers))
    if how in {"state", "prepare", "close"}:
        from . import states  # few workers have one

        return states.load(load_function, how, *what)
    return packing.resolve(*what) if how == "reference" else pickle.loads(what[0])


def close_states(run: Callable[[Any], object]) -> None:
    """Close the states of the pools that this worker worked for, if any had some."""
    states = sys.modules.get(f"{__package__}.states")
    if states is not None:
        states.close_all(run)


def main(folder: str, page_path: str, token: bytes, index: int, serial: int) -> None:
    """The life of a worker, in a process that the agent has just forked."""
    stacks.listen(page_path)
    link = Link(os.path.join(folder, "s"), token)
    worker = Worker(link, Page(page_path), index, folder, serial)
    os.register_at_fork(after_in_child=worker.forked)
    link.send(wire.HELLO, os.getpid().to_bytes(8, "little"))
    try:
        worker.serve()
    except ConnectionError:
        pass  # the executor is gone, and nobody waits for an answer
    finally:
        close_states(lambda ending: worker.streams.loop.run(ending, "closing a state"))
        worker.streams.close()
        link.socket.close()
