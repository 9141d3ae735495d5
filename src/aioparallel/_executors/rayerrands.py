"""How calls get to Ray, and their answers back. The life of a call, as far as this module is concerned::

    placed --> (storing) --> at Ray --> answered, or lost
                  |             `--halted, and 20 ms later--> ray.cancel(force) --> Ray says that it is gone --> lost
                  `--halted--> withdrawn

* *storing*: what is large goes to the object store first, in a thread, for that takes milliseconds for each megabyte.
  A function with all that it holds, such as a map's constants, is stored once.
* *at Ray*: there is a reference. Its future is told by a thread of Ray's when the answer is there, and the loop is
  woken once for many of them; nothing is polled, and no task waits.
* An answer is an envelope of our own, also for an exception. What Ray raises instead of an answer means that there is
  none: it is translated (:mod:`.._workers.rayerrors`), and is the cause of our error.
* Ray is told never to run a call again by itself. Retries are the ledger's, as everywhere.
* A call with a ``timeout`` tells when it begins: it is a stream of two items, "it has begun" and the answer. Such a
  call has a task of ours that follows it.
* A generator lives in an actor of its own, which holds no CPU between two steps.
"""

from __future__ import annotations

import pickle
import secrets
import time
from asyncio import TimerHandle
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from .._child import wire
from .._model.call import Call, Ending
from .._model.errors import WorkerLostError
from .._policy.seats import Seat
from .._policy.steps import WorkerEnd
from .._workers.rayerrors import age, translated
from .._workers.rayguest import later_path, remote_functions
from .._workers.returning import cannot_be_rebuilt, unpack_failure
from .._workers.shipping import Function
from .local import group_of
from .pool import Executor, Run
from .rayoptions import RayOptions

__all__ = ["Errands", "farewell", "kill"]

LARGE = 100_000
"""Bytes from which on something is stored before it is sent."""
STORING_THREADS = 4
RESPITE = 0.02
"""Seconds between the wish to stop a call and telling Ray. To cancel a task in the very moment in which it ends aborts
this process ("Tried to complete task that was not pending", seen with Ray 2.60); whatever is about to end may do so."""

Arrival = Callable[[Any, BaseException | None], None]
"""Gets an answer, or what there is instead, on the loop."""


class Errands:
    """Carries calls to Ray and their answers back. One for each run."""

    def __init__(self, pool: Executor, run: Run) -> None:
        self.pool = pool
        self.run = run
        self._answer, self._telling, self._resident = remote_functions()
        self._variants: dict[tuple[int, str, tuple[Any, ...]], Any] = {}
        self._references: dict[Call, Any] = {}
        """Of calls that are at Ray: what can be cancelled there."""
        self._scopes: dict[Call, anyio.CancelScope] = {}
        """Of calls that are on their way."""
        self._timers: dict[Call, TimerHandle] = {}
        self._actors: dict[int, Any] = {}
        """Where generators live, by the number of the call that has opened them."""
        self._arrived: deque[tuple[Arrival, Any, BaseException | None]] = deque()
        self._told = False
        """Whether the loop is going to look at what has arrived."""
        self._ends: dict[Seat, list[WorkerEnd]] = {}
        """How calls have ended that are being looked at."""
        self._storing: dict[int, anyio.Lock] = {}
        """For each large function: who stores it."""
        self._limiter = anyio.CapacityLimiter(STORING_THREADS)
        self._path = later_path()
        self._key = secrets.token_hex(8)
        """Tells our functions from those of others, in workers that serve us all."""

    async def close(self) -> None:
        """Close the generators that nobody has closed, and end their processes."""
        actors = [self._actors.pop(key) for key in list(self._actors)]
        with anyio.move_on_after(self.pool.grace):
            await farewell(actors)
        for actor in actors:
            kill(actor)

    # There

    def send(self, call: Call) -> None:
        """Give a call to Ray; what is large goes to the object store first."""
        call.begun_at = None if call.options.timeout is not None else time.time()
        payload, buffers = call.payload
        if len(payload) + sum(map(len, buffers)) > LARGE or _is_to_be_stored(call.function):
            group_of(self.run).start_soon(self._send_stored, call)
        else:
            self._send(call)

    async def _send_stored(self, call: Call) -> None:
        try:
            with anyio.CancelScope() as scope:
                self._scopes[call] = scope
                await self._store_function(call.function)
                payload, buffers = call.payload
                large = [payload, *buffers] if len(payload) > LARGE else buffers
                call.payload = payload if len(payload) <= LARGE else None, [await self._store(each) for each in large]
        except Exception as error:
            self._not_sent(call, error)
            return
        finally:
            del self._scopes[call]
        if scope.cancel_called:
            self._ended([(call.seq, Ending.WITHDRAWN, None, 0.0)], call)
        else:
            self._send(call)

    async def _store_function(self, function: Function) -> None:
        """Store what is large of it, if nobody has; several calls may come to that at once."""
        async with self._storing.setdefault(function.number, anyio.Lock()):
            if _is_to_be_stored(function):
                whole = [function.packed] if len(function.packed) > LARGE else []
                function.stored = [await self._store(buffer) for buffer in (*whole, *function.buffers)]
                function.buffers = []

    async def _store(self, large: Any) -> Any:
        import ray

        return await anyio.to_thread.run_sync(ray.put, pickle.PickleBuffer(large), limiter=self._limiter)

    def _send(self, call: Call) -> None:
        function, (payload, buffers) = call.function, call.payload
        who = (call.future.id, call.name, call.attempts, call.worker.index, self._path)
        packed = None if len(function.packed) > LARGE else function.packed
        key = f"{self._key}-{function.number}"
        envelope = pickle.dumps((who, call.kind, key, packed, len(function.stored), payload))
        try:
            self._hand_over(call, [envelope, *function.stored, *map(_as_argument, buffers)])
        except Exception as error:
            self._not_sent(call, error)

    def _hand_over(self, call: Call, arguments: list[Any]) -> None:
        actor = self._actor_for(call)
        if actor is not None:
            reference = actor.answer.remote(*arguments)
        elif call.options.timeout is None:
            reference = self._variant(self._answer, call).remote(*arguments)
        else:
            reference = self._variant(self._telling, call).remote(*arguments)
            self._references[call] = reference
            group_of(self.run).start_soon(self._follow, call, reference)
            return
        self._references[call] = reference
        self._ask(partial(self._on_end, call), reference)

    def _actor_for(self, call: Call) -> Any:
        """The actor that runs the call, if one has to."""
        if call.kind == wire.STREAM_OPEN:
            actor = self._actors[call.future.id] = self._variant(self._resident, call).remote()
            return actor
        return self._actors[self._stream_of(call)] if call.kind in {wire.STREAM_NEXT, wire.STREAM_CLOSE} else None

    def _stream_of(self, call: Call) -> int:
        """The number of the call that has opened the stream of this one; 0 if it is of none."""
        if call.kind in {wire.STREAM_NEXT, wire.STREAM_CLOSE}:
            return int(call.args[0])
        return call.future.id if call.kind == wire.STREAM_OPEN else 0

    def _variant(self, remote: Any, call: Call) -> Any:
        """The remote function or class with the call's name and demands; Ray takes its time to make one."""
        options = call.options
        demands = options.demands() if isinstance(options, RayOptions) else {}
        key = (id(remote), call.name, tuple((name, repr(value)) for name, value in demands.items()))
        variant = self._variants.get(key)
        if variant is None:
            named = {} if remote is self._resident else {"name": call.name}
            variant = self._variants[key] = remote.options(**named, **demands)
        return variant

    async def _follow(self, call: Call, stream: Any) -> None:
        """Wait until a call begins, and then for its answer."""
        answer, error = None, None
        try:
            await (await anext(stream))
            call.begun_at = time.time()
            self._set_timer(call, call.options.timeout)
            answer = _opened(await (await anext(stream)))
        except Exception as problem:
            error = problem
        self._arrived.append((partial(self._on_end, call), answer, error))
        self._collect()

    # And back

    def _ask(self, arrival: Arrival, reference: Any) -> None:
        """Have ``arrival`` called on the loop with the answer, or with what Ray says instead."""
        reference.future().add_done_callback(partial(self._on_answer, arrival))

    def _on_answer(self, arrival: Arrival, future: Any) -> None:
        """On a thread of Ray's."""
        answer, error = None, None
        try:
            answer = _opened(future.result())
        except BaseException as problem:
            error = problem
        self._arrived.append((arrival, answer, error))
        if not self._told:
            self._told = True
            try:
                self.run.loop.call_soon_threadsafe(self._collect)
            except RuntimeError:
                pass  # the loop was closed, and nobody is left to be told

    def _collect(self) -> None:
        self._told = False
        while self._arrived:
            arrival, answer, error = self._arrived.popleft()
            arrival(answer, error)
        ends, self._ends = self._ends, {}
        for seat, several in ends.items():
            self.pool._answered(self.run, seat, several)

    def _on_end(self, call: Call, answer: Any, error: BaseException | None) -> None:
        self._references.pop(call, None)
        self._forget_timer(call)
        if call.worker.held.get(call.seq) is not call:
            return  # it was given up
        if error is not None:
            self._lose(call, error)
        else:
            self._ends.setdefault(call.worker, []).append((call.seq, *self._read(call, *answer)))

    def _read(self, call: Call, ending: int, seconds: float, payload: bytes, buffers: list[Any]) -> tuple[Any, ...]:
        """How a call ended, its value or error, and what it took."""
        if ending == wire.RAISED:
            self._end_stream(call)
            return Ending.RAISED, self._failure(call, payload), seconds
        try:
            value = pickle.loads(payload, buffers=buffers)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a result may well exit, and must not end the program
            self._end_stream(call)
            return Ending.RAISED, cannot_be_rebuilt(error, call.name), seconds
        return Ending.OK, self._special(call, value) if call.kind else value, seconds

    def _special(self, call: Call, value: Any) -> Any:
        """The value of a chunk of a map, or of a step of a stream."""
        if call.kind == wire.STREAM_CLOSE:
            self._end_stream(call)
            return value
        if call.kind in {wire.STREAM_OPEN, wire.STREAM_NEXT}:
            items, ended, packed = value
            if ended or call.stop is not None:
                self._end_stream(call)
            return items, ended, None if packed is None else self._failure(call, packed)
        values, failed = value
        counts = self.run.ledger.counts  # which has one for the chunk as a whole
        counts.done += len(values) - len(failed) - 1
        counts.failed += len(failed)
        return values, {index: self._failure(call, packed) for index, packed in failed.items()}

    def _failure(self, call: Call, packed: bytes) -> BaseException:
        return unpack_failure(packed, call.name, f"{call.worker}, attempt {call.attempts}")

    def _end_stream(self, call: Call) -> None:
        """The call was the last that its generator had to do."""
        actor = self._actors.pop(self._stream_of(call), None) if call.kind else None
        if actor is not None:
            kill(actor)

    def _not_sent(self, call: Call, error: Exception) -> None:
        """Ray has refused the call: what is wrong with its options it says well enough by itself."""
        from ray.exceptions import RayError

        self._end_stream(call)
        problem = translated(call, error) if isinstance(error, RayError) else error
        self._ended([(call.seq, Ending.RAISED, problem, 0.0)], call)

    def _ended(self, ends: list[WorkerEnd], call: Call) -> None:
        self.pool._answered(self.run, call.worker, ends)

    def _lose(self, call: Call, error: BaseException) -> None:
        """There is no answer, and never will be."""
        self._end_stream(call)
        problem = translated(call, error)
        if isinstance(problem, WorkerLostError):
            ledger = self.run.ledger
            self.pool._carry_out(self.run, ledger.lost(call.worker, call, problem, time.time()))
            self.pool._pump(self.run)
        else:
            self._ended([(call.seq, Ending.RAISED, problem, age(call))], call)

    # Stopping calls

    def halt(self, call: Call) -> None:
        """Take a call back if it has not been sent, and else have Ray kill its worker."""
        if self._withdraw(call):
            return
        actor = self._actors.get(self._stream_of(call)) if call.kind else None
        if actor is not None:
            kill(actor)
        elif call in self._references:
            self.run.loop.call_later(RESPITE, self._cancel, call, self._references[call])

    def _cancel(self, call: Call, reference: Any) -> None:
        import ray

        if self._references.get(call) is reference:
            ray.cancel(reference, force=True)

    def _withdraw(self, call: Call) -> bool:
        """Take a call back that has not been sent."""
        scope = self._scopes.get(call)
        if scope is not None:
            scope.cancel()
        return scope is not None

    def _set_timer(self, call: Call, seconds: float | None) -> None:
        if seconds is not None:
            self._timers[call] = self.run.loop.call_later(seconds, self._time_up, call)

    def _forget_timer(self, call: Call) -> None:
        timer = self._timers.pop(call, None)
        if timer is not None:
            timer.cancel()

    def _time_up(self, call: Call) -> None:
        self.pool._carry_out(self.run, self.run.ledger.overdue(call))


async def farewell(actors: list[Any]) -> None:
    """Have actors close what they hold, and wait for that."""
    for leaving in [actor.leave.remote() for actor in actors]:
        try:
            await leaving
        except Exception:
            pass  # it is gone already


def kill(actor: Any) -> None:
    """End an actor's process, now."""
    import ray

    ray.kill(actor, no_restart=True)


def _opened(answer: bytes | list[Any]) -> tuple[int, float, bytes, list[memoryview]]:
    """An answer; its buffers in memory of our own, which may be written to, and keeps no place in the object store."""
    packed, *buffers = [answer] if isinstance(answer, bytes) else answer
    return *pickle.loads(packed), [memoryview(bytearray(buffer)) for buffer in buffers]


def _is_to_be_stored(function: Function) -> bool:
    return not function.stored and (bool(function.buffers) or len(function.packed) > LARGE)


def _as_argument(buffer: Any) -> Any:
    """What Ray takes uncopied: something stored already, or a buffer."""
    return pickle.PickleBuffer(buffer) if isinstance(buffer, (bytes, memoryview)) else buffer
