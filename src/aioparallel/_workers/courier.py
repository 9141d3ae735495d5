"""The trip through pickle that a call makes to a worker process and back, without the process."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._child import failures, packing
from .._child.current import current
from .._child.worker import load_function
from .._model.call import Call, function_name
from .._model.shapes import Shape, shape_of
from .returning import cannot_be_rebuilt, unpack_failure
from .shipping import Function, Functions, pack_arguments

if TYPE_CHECKING:
    from .._child.packing import Buffers

__all__ = ["Courier", "Parcel"]


class Courier:
    """Packs calls as they would travel, and keeps what a worker would keep: the functions that it has loaded.

    Args:
        name: Stands for the worker's in the notes of exceptions.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._functions = Functions()
        self._loaded: dict[int, Callable[..., Any]] = {}

    def pack(self, call: Call) -> Parcel:
        """A function of no arguments that does what the call would do in a worker process.

        Raises:
            PicklingError: The function or an argument cannot travel.
        """
        function = self._functions.get(call.fn)
        payload, buffers = pack_arguments(call.args, call.kwargs, call.name)
        kind = AsyncParcel if shape_of(call.fn) is Shape.COROUTINE else Parcel
        return kind(self, call.fn, function, payload, buffers)

    def load(self, function: Function) -> Callable[..., Any]:
        """The function as it arrives."""
        if function.number not in self._loaded:
            self._loaded[function.number] = load_function(function.packed)
        return self._loaded[function.number]


class Parcel:
    """A packed call. Calling it unpacks it, runs it, and packs and unpacks its result or exception."""

    def __init__(
        self, courier: Courier, fn: Callable[..., Any], function: Function, payload: bytes, buffers: Buffers
    ) -> None:
        self.__qualname__ = function_name(fn)
        self._courier = courier
        self._function = function
        self._payload = payload
        self._buffers = buffers

    def __call__(self) -> Any:
        fn, args, kwargs = self._unpack()
        try:
            value = fn(*args, **kwargs)
        except BaseException as error:
            failure = failures.pack(error)
        else:
            return self._returned(value)
        raise self._raised(failure)

    def _unpack(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        what = f"the function {self._function.name}"
        try:
            fn = self._courier.load(self._function)
            what = f"the arguments of {self._function.name}"
            args, kwargs = packing.loads_arguments(self._payload, _copied(self._buffers))
        except BaseException as error:
            failure = failures.pack_unloadable(error, what)
        else:
            return fn, args, kwargs
        raise self._raised(failure)

    def _returned(self, value: Any) -> Any:
        name = self._function.name
        buffers: Buffers = []
        try:
            payload = packing.dumps_result(value, buffers)
        except BaseException as error:
            problem = packing.explain(value, error, f"the result of {name}", packing.dumps_by_value)
        else:
            return _rebuilt(payload, buffers, name)
        raise self._raised(failures.pack(problem))

    def _raised(self, failure: bytes) -> BaseException:
        here = current.get()
        attempt = 1 if here is None else here.attempt
        return unpack_failure(failure, self._function.name, f"{self._courier.name}, attempt {attempt}")


class AsyncParcel(Parcel):
    """The same for a coroutine function."""

    async def __call__(self) -> Any:
        fn, args, kwargs = self._unpack()
        try:
            value = await fn(*args, **kwargs)
        except BaseException as error:
            failure = failures.pack(error)
        else:
            return self._returned(value)
        raise self._raised(failure)


def _rebuilt(payload: bytes, buffers: Buffers, name: str) -> Any:
    try:
        return pickle.loads(payload, buffers=_copied(buffers))
    except Exception as error:
        problem = cannot_be_rebuilt(error, name)
    raise problem


def _copied(buffers: Buffers) -> Buffers:
    """What arrives on the other side of a socket is another piece of memory."""
    return [memoryview(bytearray(buffer)) for buffer in buffers]
