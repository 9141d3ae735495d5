"""The host agent: a small, single-threaded parent of a pool's workers on one machine.

It never runs the user's code. It forks workers on request, looks at what they do, kills exactly the one call it is told
to, reaps them, forwards what they write, and ends everything when its lifeline closes: standard input, which the
executor holds however far away it is. Where the executor is on another machine, it also carries the workers' links,
and ends everything when it has heard nothing for the time of its lease.

It speaks frames (see :mod:`.mux`). The messages that it is told, with their fields:

=============  =================================================================================================
``open``       once: ``folder`` of the pool (none: make one, and carry links), ``threads`` per worker, ``max_memory``
               of one (bytes), ``lease`` (milliseconds)
``fork``       a worker: ``serial``, ``index``, ``token``, ``env``
``halt``       a ``call`` of a worker, by its number: take it back, or kill it if it runs, with its ``stack``; but not
               before it has run so many microseconds, if it says ``after``
``ask``        a ``call``, in a worker with threads, to end by itself, and not to begin
``forget``     a ``call`` that was to be halted has ended
``look``       let nothing wait behind a long call, up to ``call``, nor, with ``chunks``, behind a long item
``kill``       a worker, whatever it runs, with its ``stack``
``stack``      of a worker, while it goes on
``move``       to another ``folder``
``answer``     to ``ask``: what a module is (see :mod:`.questions`); pieces of it may follow
``renew``      modules have changed: forget what these ``names`` are
``beat``       the executor lives; is answered with the same ``number``, and then with what ``memory`` its workers have
=============  =================================================================================================

What it says: ``ready`` or ``failed``, ``forked``, ``spared`` (a call has not run so long), ``split`` (a chunk: from
which item on it will not run), ``taken`` (bytes of a link), ``stack``, ``beat``, ``memory`` (what workers hold, in
bytes), ``ask`` (what a module is, in the name of a worker), and ``gone``: a worker, with all that is known of its end,
after its last answers.
"""

from __future__ import annotations

import math
import os
import sys
import time

from . import children, descriptors, messages, mux, stacks, tree, wire
from .children import Child
from .folders import private_folder
from .lean import signal
from .looking import ANSWERS, KILL
from .page import CANCELLED
from .polling import IN, Outlet, Poll
from .worker import memory_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .carrying import Dock
    from .questions import Responder

MAX_UNSENT = 1 << 20
"""Bytes that wait for the executor; beyond that, workers wait in their ``write``."""
RECEIVE = 1 << 18
DRAIN_SECONDS = 0.2
END_SECONDS = 2.0
"""So long the agent waits until all that it killed has ended."""
HARD_CAP = 2
"""So many times its limit may a worker have while it runs a call."""
MEMORY_SECONDS = 0.1
OWN_DESCRIPTORS = 32
"""So many are left for what is not a worker's: pipes, sockets, questions, archives, a look into /proc."""
MOST_WEIGHED = 256
"""So many workers' memory is told of at each beat; that takes some microseconds for each."""


class Agent:
    """Serves one executor over two descriptors."""

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self.folder = ""
        self.threads = 1
        self.max_memory: int | None = None
        self.lease: float | None = None
        self.responder: Responder | None = None
        """Who answers workers that ask for modules, where the agent carries their links."""
        self.dock: Dock | None = None
        """Where workers connect to, then."""
        self.children: dict[int, Child] = {}
        self.by_pid: dict[int, Child] = {}
        self.poll = Poll()
        self.splitter = mux.Splitter()
        self.outlet = Outlet(self.poll, sink, self._break)
        self.outlet.on_room = self._listen
        self.held_back = False
        """Whether workers wait in their writes."""
        self.serving = True
        self.heard = time.monotonic()
        self.next_weighing = 0.0
        self.due = math.inf
        """When something is to be done although nothing happens (``time.monotonic``) ..."""
        self.changed = False
        """... and whether that may have changed: each worker is asked, which calls and answers must not wait for."""
        self.poll.watch(source, IN, self._on_source)
        self.wakeup, wake = os.pipe()
        os.set_blocking(self.wakeup, False)
        os.set_blocking(wake, False)
        self.poll.watch(self.wakeup, IN, lambda event: self._reap())
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def serve(self) -> NoReturn:
        """Work until the lifeline closes; then leave nothing behind."""
        try:
            while self.serving:
                self.poll.wait(self._patience(time.monotonic()))
                now = time.monotonic()
                if self.changed or now >= self.due:
                    self._look_after(now)
                if self.lease is not None and now - self.heard > self.lease:
                    self.serving = False
        except Exception as error:
            print(f"the host agent ends: {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            self._end_everything()
            os._exit(0)

    def _break(self) -> None:
        """The executor is gone."""
        self.serving = False

    def _patience(self, now: float) -> float | None:
        """Milliseconds until something is to be done although nothing has happened."""
        first = self.due if self.lease is None else min(self.due, self.heard + self.lease)
        return None if first == math.inf else max(0.0, first - now) * 1000 + 0.2

    def _look_soon(self) -> None:
        self.changed = True

    def _look_after(self, now: float) -> None:
        self.changed = False
        for child in [child for child in self.children.values() if child.watch.next_look <= now]:
            self._look_at(child, now)
        if self.max_memory is not None and now >= self.next_weighing:
            self.next_weighing = now + MEMORY_SECONDS
            self._weigh(self.max_memory)
        self._announce_ends(now)
        if self.dock is not None:
            self.dock.look(now)
        self.due = self._next_due()

    def _next_due(self) -> float:
        times = [child.ended_at + DRAIN_SECONDS for child in self.children.values() if child.end is not None]
        times += [child.watch.next_look for child in self.children.values()]
        if self.max_memory is not None and self.children:
            times.append(self.next_weighing)
        if self.dock is not None:
            times.append(self.dock.next_look)
        return min(times, default=math.inf)

    # What the executor says

    def _on_source(self, event: int) -> None:
        try:
            received = os.read(self.source, RECEIVE)
        except OSError:
            received = b""
        if not received:
            self.serving = False
            return
        self.heard = time.monotonic()
        for kind, serial, body in self.splitter.feed(received):
            if kind == mux.LINK:
                child = self.children.get(serial)
                if child is not None and child.link is not None:
                    child.link.write(body)
            elif kind == mux.MESSAGE:
                self.changed = True
                message = messages.loads(bytes(body))
                getattr(self, f"_on_{message['op']}")(message)
            elif kind == mux.PIECE and self.responder is not None:
                digest, offset = mux.OF_ARCHIVE.unpack_from(body)
                self.responder.on_piece(str(digest, "ascii", "replace"), offset, body[mux.OF_ARCHIVE.size :])
            else:
                raise mux.MuxError(f"a frame of kind {kind!r}")

    def _say(self, **message: Any) -> None:
        self._send(mux.MESSAGE, 0, messages.dumps(message))

    def _send(self, kind: bytes, serial: int, *parts: bytes) -> None:
        self.outlet.write(mux.head(kind, serial, sum(map(len, parts))), *parts)
        if self.outlet.waiting > MAX_UNSENT and not self.held_back:
            self._listen()

    def _listen(self) -> None:
        """While the executor does not keep up, let those who write wait."""
        self.held_back = self.outlet.waiting > MAX_UNSENT
        events = 0 if self.held_back else IN
        for child in self.children.values():
            for descriptor in child.outputs:
                self._listen_to(child, descriptor, events)
            if child.link is not None:
                child.link.listen(not self.held_back)

    def _on_open(self, message: dict[str, Any]) -> None:
        self.threads = message["threads"]
        self.max_memory = message["max_memory"]
        self.lease = None if message["lease"] is None else message["lease"] / 1000
        try:
            self.folder = message["folder"] or private_folder()
            if message["folder"] is None:
                from .carrying import Dock
                from .questions import Responder

                self.responder = Responder(
                    self.folder, self.poll, lambda name, send: self._say(ev="ask", name=name, send=int(send))
                )
                self.dock = Dock(self.poll, os.path.join(self.folder, "s"), self._on_connection, self._look_soon)
        except OSError as error:  # no room on the disk, most likely
            self._say(ev="failed", reason=f"{type(error).__name__}: {error}")
            return
        tree.adopt_orphans()
        self._say(ev="ready", pid=os.getpid(), version=sys.version.partition(" ")[0])

    def _on_move(self, message: dict[str, Any]) -> None:
        self.folder = message["folder"]

    def _on_answer(self, message: dict[str, Any]) -> None:
        del message["op"]
        if self.responder is not None:
            self.responder.on_answer(message)

    def _on_renew(self, message: dict[str, Any]) -> None:
        if self.responder is not None:
            self.responder.forget(message["names"].split())

    def _on_beat(self, message: dict[str, Any]) -> None:
        self._say(ev="beat", number=message["number"])
        weighed = [child for child in self.children.values() if child.end is None][:MOST_WEIGHED]
        if weighed:
            sizes = " ".join(f"{child.serial}:{memory_of(child.pid)}" for child in weighed)
            self._say(ev="memory", sizes=sizes)

    # Workers

    def _on_fork(self, message: dict[str, Any]) -> None:
        serial = message["serial"]
        try:
            self._keep_some_descriptors()
            child = children.fork(message, self.folder)
        except OSError as error:
            told = f"the host agent cannot start a worker, with its files in {self.folder}: {error}\n"
            if descriptors.are_used_up(error):
                told = f"the host agent cannot start a worker: {error}. {descriptors.advice('It')}.\n"
            self._send(mux.ERR, serial, told.encode())
            nothing = {"pid": None, "signal": None, "exitcode": None, "max_rss": None, "stack": "", "oom": None}
            self._say(ev="gone", serial=serial, running="", **nothing)
            return
        self.children[serial] = self.by_pid[child.pid] = child
        for descriptor in child.outputs:
            self._listen_to(child, descriptor, 0 if self.held_back else IN)
        self._say(ev="forked", serial=serial, pid=child.pid)

    def _keep_some_descriptors(self) -> None:
        """Start no worker whose connection could not be taken, or that would be the last of which anything is heard.

        Raises:
            OSError: There would be too few left.
        """
        for_each = 2 if self.dock is None else 4
        if OWN_DESCRIPTORS + for_each * (len(self.children) + 1) > descriptors.most():
            raise descriptors.none_left()

    def _on_connection(self, token: str, descriptor: int) -> None:
        child = next((child for child in self.children.values() if child.mark == token), None)
        if child is None or child.link is not None:
            os.close(descriptor)
            return
        from .carrying import Carried

        serial = child.serial
        child.link = Carried(
            self.poll,
            descriptor,
            lambda received: self._send(mux.LINK, serial, received),
            lambda taken: self._say(ev="taken", serial=serial, bytes=taken),
        )

    def _listen_to(self, child: Child, descriptor: int, events: int) -> None:
        self.poll.watch(descriptor, events, lambda event: self._forward(child, descriptor))

    def _forward(self, child: Child, descriptor: int) -> None:
        try:
            written = os.read(descriptor, 65536)
        except BlockingIOError:
            return
        if written:
            self._send(child.outputs[descriptor], child.serial, written)
        else:
            self._close_output(child, descriptor)

    def _close_output(self, child: Child, descriptor: int) -> None:
        self.changed = True
        del child.outputs[descriptor]
        self.poll.ignore(descriptor)
        os.close(descriptor)

    # Calls

    def _on_halt(self, message: dict[str, Any]) -> None:
        child = self.children.get(message["serial"])
        if child is None or child.end is not None:
            return
        number, after = message["call"], message["after"]
        if after is not None:
            ran = int(child.page.age(number, time.monotonic()) * 1e6)
            if ran < after:
                self._say(ev="spared", serial=child.serial, call=number, ran=ran)
                return
        child.watch.halt(number, bool(message["stack"]))

    def _on_ask(self, message: dict[str, Any]) -> None:
        child = self.children.get(message["serial"])
        if child is not None:
            child.page.flag(message["call"], CANCELLED)

    def _on_forget(self, message: dict[str, Any]) -> None:
        child = self.children.get(message["serial"])
        if child is not None:
            child.watch.forget(message["call"])

    def _on_look(self, message: dict[str, Any]) -> None:
        child = self.children.get(message["serial"])
        if child is not None and child.end is None:
            child.watch.look_behind(message["call"], bool(message["chunks"]))

    def _on_kill(self, message: dict[str, Any]) -> None:
        child = self.children.get(message["serial"])
        if child is not None:
            child.kill(None, bool(message["stack"]))

    def _on_stack(self, message: dict[str, Any]) -> None:
        child = self.children.get(message["serial"])
        if child is not None and child.end is None:
            self._say(ev="stack", serial=child.serial, stack=stacks.take(child.pid, child.page_path))

    def _look_at(self, child: Child, now: float) -> None:
        for what, found, more in child.watch.look(now):
            if what == KILL:
                if child.kill(found, more):
                    child.watch.spared(found)
            elif what == ANSWERS:
                self._send(mux.VOICE, child.serial, bytes([wire.ANSWERS]), found)
            else:
                self._say(ev="split", serial=child.serial, call=found, item=more)

    def _weigh(self, limit: int) -> None:
        """Kill the one call that makes its worker far larger than it may be."""
        for child in self.children.values():
            running = child.page.all_running(self.threads)
            used = memory_of(child.pid) if running and child.end is None else 0
            if used > HARD_CAP * limit:
                child.too_large = (
                    f"it used {used / 2**20:.0f} MiB, and was killed by aioparallel, because that is more than "
                    f"{HARD_CAP} times max_rss_per_worker ({limit / 2**20:.0f} MiB)"
                )
                if child.kill(next(iter(running)) if self.threads == 1 else None, False):
                    child.too_large = None

    # Ends

    def _reap(self) -> None:
        self.changed = True
        try:
            os.read(self.wakeup, 4096)
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = self.by_pid.get(pid)
            if child is not None:
                child.ended(status, usage)

    def _announce_ends(self, now: float) -> None:
        """Say that a worker is gone: when its output has ended, or a little later."""
        for child in [child for child in self.children.values() if child.end is not None]:
            if not child.outputs or now - child.ended_at >= DRAIN_SECONDS:
                self._announce_end(child, now)

    def _announce_end(self, child: Child, now: float) -> None:
        for descriptor in list(child.outputs):
            self._close_output(child, descriptor)
        del self.children[child.serial], self.by_pid[child.pid]
        running = child.page.all_running(self.threads)
        unsent, notes = child.page.unsent(), child.notes() if running else b""
        assert child.end is not None, "that is what was asked"
        if self.responder is not None:
            self.responder.worker_gone(child.serial)
        child.close()  # first what it has sent itself, then what it had no time to send
        if unsent:
            self._send(mux.VOICE, child.serial, bytes([wire.ANSWERS]), unsent)
        if notes:
            self._send(mux.VOICE, child.serial, bytes([wire.NOTES]), notes)
        self._say(ev="gone", running=_written(running, now), **child.end)

    def _end_everything(self) -> None:
        for child in self.children.values():
            if child.end is None:
                tree.kill(child.pid, child.mark)
        _kill_all()
        if self.folder:
            import shutil

            shutil.rmtree(self.folder, ignore_errors=True)


def _written(running: dict[int, float], now: float) -> str:
    """Numbers of calls, and for how many microseconds each has run."""
    return " ".join(f"{number}:{int((now - began) * 1e6)}" for number, began in running.items())


def _kill_all() -> None:
    """Kill what is left, and what that starts meanwhile, until nothing is."""
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        tree.kill_orphans()
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.0005)
        except ChildProcessError:
            return


def main() -> NoReturn:
    """Serve on what were standard input and output, and leave those to nobody."""
    source, sink = os.dup(0), os.dup(1)
    os.set_inheritable(source, False)
    os.set_inheritable(sink, False)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    Agent(source, sink).serve()
