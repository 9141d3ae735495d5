"""A backend for joblib, and so for scikit-learn: whatever calls ``joblib.Parallel`` runs on an executor of ours.

::

    import aioparallel.joblib, joblib

    aioparallel.joblib.register()
    with joblib.parallel_config("aioparallel", n_jobs=4):
        GridSearchCV(model, grid).fit(X, y)

Batching, nested calls, ``return_as``, ``timeout`` and errors are joblib's own, and as with its other backends. When a
call ends early (by an error, a ``timeout``, Ctrl-C, or a generator that is dropped), what runs in processes is killed,
one by one, and only what that call has submitted.

Large arrays. What is larger than joblib's ``max_nbytes`` and goes to processes on this machine is written once for
each ``Parallel`` call to a file that the workers map, as with joblib's other backends: all of them share it, and may
not write to it unless ``mmap_mode`` says so. To other machines arrays travel uncopied beside the pickle.
"""

from __future__ import annotations

import concurrent.futures
import os
import pickle
import weakref
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any
from uuid import uuid4

import aioparallel

from ._child import packing
from ._child.cpus import available_cpus
from ._verbs.current import in_worker
from ._workers.shipping import HERE
from .blocking import Executor, Future, ProcessExecutor, ThreadExecutor

try:
    import joblib
    from joblib._memmapping_reducer import has_shareable_memory, reduce_array_memmap_backward
    from joblib._parallel_backends import AutoBatchingMixin, FallbackToBackend, SequentialBackend
    from joblib.parallel import ParallelBackendBase
except ImportError as error:
    raise ImportError("aioparallel.joblib needs joblib: pip install 'aioparallel[joblib]'") from error

__all__ = ["Backend", "register"]


def register(*, default: bool = False) -> None:
    """Make the backend known to joblib as ``"aioparallel"``. May be called again.

    Args:
        default: Use it where no backend is named.

    Example:
        ::

            register()
            joblib.Parallel(n_jobs=4, backend="aioparallel")(joblib.delayed(crunch)(n) for n in range(100))
    """
    joblib.register_parallel_backend("aioparallel", Backend, make_default=default)


class Backend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs batches of joblib on an executor. Joblib makes it, of what ``parallel_config`` is given.

    Args:
        executor: Where batches run: an executor of :mod:`aioparallel.blocking`, which stays open, or one of
            aioparallel that is not open. Without one, processes of its own, ``n_jobs`` of them, which stay as long as
            the ``parallel_config`` block, or the ``Parallel`` object.
        nesting_level: Joblib's.
        inner_max_num_threads: How many threads BLAS and OpenMP have in each of the processes of its own; by default
            as many as leave no core idle.
        **options: Options of the :class:`aioparallel.ProcessExecutor` of its own.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    default_n_jobs = -1

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        executor: Executor | aioparallel.Executor | None = None,
        **options: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        if not isinstance(executor, Executor | aioparallel.Executor | None):
            raise TypeError(f"executor={executor!r}: expected an executor of aioparallel, or of aioparallel.blocking")
        if executor is not None and options:
            raise TypeError(f"{', '.join(options)}: these are options of an executor, and executor={executor!r} is one")
        self._given = Executor(executor) if isinstance(executor, aioparallel.Executor) else executor
        self._options = options
        self._own: Executor | None = None
        self._own_jobs = 0
        self._pool: Executor | None = None
        self._teller = ThreadExecutor(1, name="joblib callbacks")
        self._arrays: SharedArrays | None = None
        self._running: dict[concurrent.futures.Future[Any], list[Any]] = {}
        """The arrays that each batch uses."""
        kind = "process" if self._given is None else self._given._door.pool.kind
        self._is_local = kind == "process"
        self._grows = kind in {"remote", "ray"}
        self.uses_threads = self.supports_sharedmem = kind in {"thread", "serial", "coroutine"}

    # What joblib asks for

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many batches run at a time."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or in_worker():  # processes never multiply
            return 1
        most = available_cpus() if self._given is None else self._given._max_workers
        if n_jobs < 0:
            return max(1, most + 1 + n_jobs)
        # Hosts and nodes may still come, so there as many as were asked for are ready to run.
        return n_jobs if self._given is None or self._grows else min(n_jobs, most)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: str | None = None,
        require: str | None = None,
        max_nbytes: int | None = None,
        temp_folder: str | None = None,
        mmap_mode: str | None = None,
        **_: Any,
    ) -> int:
        """Be ready for a ``Parallel`` call; returns how many batches run at a time."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._pool = self._processes(n_jobs) if self._given is None else self._limited(self._given, n_jobs)
        self._arrays = None
        if self._is_local and max_nbytes is not None and mmap_mode is not None:
            folder = temp_folder or self._pool._door.folder()
            self._arrays = None if folder is None else SharedArrays(folder, max_nbytes, mmap_mode)
        return n_jobs

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> Future[Any]:
        """Run a batch; ``callback`` gets its future."""
        assert self._pool is not None, "joblib configures a backend before it uses it"
        call, arrays = ((func,), []) if self._arrays is None else self._arrays.pack(func)
        future = self._pool.submit(*call)
        self._running[future] = arrays
        future.add_done_callback(lambda ended: self._running.pop(ended, None))
        if callback is not None:
            # It pulls the input and submits what comes next: nothing for the thread that serves all executors.
            future.add_done_callback(lambda ended: self._teller.submit(callback, ended))
        return future

    apply_async = submit  # before joblib 1.5

    def retrieve_result_callback(self, future: Future[Any]) -> Any:
        """What a batch has returned, or raise what it raised."""
        return future.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel what has not ended, and return when it has stopped."""
        stopping = [future for future in list(self._running) if future.cancel()]
        concurrent.futures.wait(stopping, None if self._pool is None else self._pool._door.pool.grace)

    def stop_call(self) -> None:
        """A ``Parallel`` call has ended."""
        if self._arrays is not None:
            self._arrays.forget()

    def terminate(self) -> None:
        """A ``Parallel`` object needs us no more; there may be others."""
        self.stop_call()
        self.reset_batch_stats()

    # Where batches run

    def _processes(self, n_jobs: int) -> Executor:
        if self._own is None or self._own_jobs != n_jobs:
            options = self._options
            if self.inner_max_num_threads is not None:
                threads = dict.fromkeys(self.MAX_NUM_THREADS_VARS, str(self.inner_max_num_threads))
                options = {**options, "env": {**threads, **options.get("env", {})}}
            self._own = ProcessExecutor(
                n_jobs, **{"name": "joblib", "preload": ("joblib",), **options}
            )  # the other one, dropped, closes
            self._own_jobs = n_jobs
        return self._own

    def _limited(self, pool: Executor, n_jobs: int) -> Executor:
        return pool if n_jobs == pool._max_workers else pool.options(limit=aioparallel.Limit(concurrency=n_jobs))


class SharedArrays:
    """Large arrays on their way to processes on this machine: each is written to a file once, which they map.

    A file lives as long as its array, and as batches that use it; at most until :meth:`forget`.

    Args:
        folder: Where files go.
        larger: Arrays of more bytes than this are written to files.
        mode: How workers map them, as for ``numpy.memmap``.
    """

    def __init__(self, folder: str, larger: int, mode: str) -> None:
        self._prefix = os.path.join(folder, f"joblib-{uuid4().hex}")
        self._larger = larger
        self._mode = mode
        self._files: dict[int, str] = {}
        """By the id of each array."""
        self._numbers = count()
        self._used: list[Any] = []
        self._pickler = self._make_pickler()

    def pack(self, batch: Callable[[], Any]) -> tuple[tuple[Any, ...], list[Any]]:
        """What to submit instead of the batch, and the arrays that must live until it has ended.

        Raises:
            OSError: There is no room for an array.
        """
        buffers: list[memoryview] = []
        self._used = []
        try:
            payload = packing.dumps_with(self._pickler, batch, buffers)
        except (KeyboardInterrupt, OSError):
            raise
        except BaseException:
            return (batch,), []  # submitting it says in detail what is wrong with it
        return (run_packed, payload, *map(pickle.PickleBuffer, buffers)), self._used

    def forget(self) -> None:
        """Remove the files; workers that have mapped some keep them."""
        for array in list(self._files):
            self._remove(array)

    def _make_pickler(self) -> Any:
        shared = self

        class Pickler(HERE.pickler):  # type: ignore[misc, name-defined]
            def reducer_override(self, obj: Any) -> Any:
                kind = type(obj)
                if kind.__name__ in {"ndarray", "memmap"} and kind.__module__ == "numpy":
                    if has_shareable_memory(obj):  # somebody has mapped a file for it already
                        return reduce_array_memmap_backward(obj)
                    if obj.nbytes > shared._larger and not obj.dtype.hasobject:
                        return joblib.load, (shared._file_of(obj), shared._mode)
                return super().reducer_override(obj)

        return Pickler

    def _file_of(self, array: Any) -> str:
        path = self._files.get(id(array))
        if path is None:
            path = f"{self._prefix}-{next(self._numbers)}"
            joblib.dump(array, path)
            self._files[id(array)] = path
            finalizer = weakref.finalize(array, self._remove, id(array))
            finalizer.atexit = False
        self._used.append(array)
        return path

    def _remove(self, array: int) -> None:
        path = self._files.pop(array, None)
        if path is not None:
            with suppress(FileNotFoundError):
                os.unlink(path)


def run_packed(payload: bytes, *buffers: Any) -> Any:
    """In a worker: run what :meth:`SharedArrays.pack` has packed."""
    return pickle.loads(payload, buffers=buffers)()
