"""What a map may be asked for: the keywords, once, for every door that makes one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields, replace
from typing import Any, Literal, NamedTuple, TypedDict, TypeVar

from .._model.checks import checked_count
from .._model.options import DEFAULT_OPTIONS, CallOptions, Retry

__all__ = [
    "CARRY",
    "Errors",
    "ItemForm",
    "MapKeywords",
    "MapOptions",
    "with_map_options",
]

Errors = Literal["raise", "finish", "return"]
CARRY = "carry"
"""Instead of one of these, for doors of ours: failures come in their places among the results, and nothing ends."""
F = TypeVar("F", bound=Callable[..., Any])


class MapKeywords(TypedDict, total=False):
    """The keywords as type checkers see them; :class:`MapOptions` says what they mean."""

    chunksize: int | Literal["auto"]
    prefetch: float | None
    ordered: bool
    star: bool | None
    kwstar: bool
    args: Sequence[Any]
    kwargs: Mapping[str, Any] | None
    progress: Any
    total: int | None
    timeout: float | None
    retry: Retry | int | None
    idempotent: bool
    priority: int
    limit: Any
    name: str | None


class ItemForm(NamedTuple):
    """How an item becomes a call's arguments.

    ======  ======  ==============  ==============  ===================
    star    kwstar  item            positional      keywords
    ======  ======  ==============  ==============  ===================
    False   False   value           value, *args    kwargs
    True    False   values          *values, *args  kwargs
    None    False   (ignored)       *args           kwargs
    None    True    keywords        *args           kwargs | keywords
    False   True    value, kw       value, *args    kwargs | kw
    True    True    values, kw      *values, *args  kwargs | kw
    ======  ======  ==============  ==============  ===================
    """

    star: bool | None
    kwstar: bool
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def arguments(self, item: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of one item's call.

        Raises:
            TypeError, ValueError: The item does not have the form that was announced.
        """
        star, kwstar, args, kwargs = self
        if kwstar:
            item, keywords = (None, item) if star is None else item
            kwargs = {**kwargs, **keywords}
        if star is None:
            return args, kwargs
        return ((*item, *args) if star else (item, *args)), kwargs


@dataclass(frozen=True)
class MapOptions:
    """The options of one map.

    Attributes:
        chunksize: How many items travel together; ``"auto"`` decides by what the last ones took.
        prefetch: How many items may be in flight or buffered. ``None``: twice as many as run at a time, more when they
            are short, and while a slow item holds back the ordered results of others.
        ordered: Results in input order; otherwise as they come.
        errors: ``"raise"`` cancels the rest and raises the first failure, ``"finish"`` lets running items end before it
            raises, ``"return"`` yields an :class:`~aioparallel.Outcome` for every item.
        star: ``True``: an item is several positional arguments; ``None``: it is none.
        kwstar: An item brings keyword arguments along, which win over ``kwargs`` (see :class:`ItemForm`).
        args: Positional arguments of every call, after the item.
        kwargs: Keyword arguments of every call.
        progress: ``True`` or a label draws a bar; a callable is told of every item that ended; a tqdm or rich object is
            used.
        total: Stands in for the length of an input that has none.
        timeout: Seconds from the start of an item's execution after which it is stopped.
        retry: What to do when an item fails.
        idempotent: The caller's word that an item may safely be run twice.
        priority: Higher goes first.
        limit: A :class:`~aioparallel.Limit` that must admit each item before it starts.
        name: Seen in errors, logs and progress instead of the function's own.
    """

    chunksize: int | Literal["auto"] = "auto"
    prefetch: float | None = None
    ordered: bool = True
    errors: Errors = "raise"
    star: bool | None = False
    kwstar: bool = False
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] | None = None
    progress: Any = False
    total: int | None = None
    timeout: float | None = None
    retry: Retry | int | None = None
    idempotent: bool = False
    priority: int = 0
    limit: Any = None
    name: str | None = None
    origin: CallOptions = DEFAULT_OPTIONS
    """What is said here is said on top of this: it may have options that only its executor knows."""

    def __post_init__(self) -> None:
        if self.errors not in {"raise", "finish", "return", CARRY}:
            raise ValueError(f"errors={self.errors!r}: expected 'raise', 'finish' or 'return'")
        if self.chunksize != "auto":
            checked_count("chunksize", self.chunksize)
        if self.prefetch not in {None, math.inf}:
            checked_count("prefetch", self.prefetch)
        if self.total is not None:
            checked_count("total", self.total, least=0)
        if not isinstance(self.args, (tuple, list)):
            raise TypeError(f"args={self.args!r}: expected a tuple; for a single argument write ({self.args!r},)")
        if not isinstance(self.kwargs, (Mapping, type(None))):
            raise TypeError(f"kwargs={self.kwargs!r}: expected a dict")
        if not (self.star is None or isinstance(self.star, bool)):
            raise TypeError(f"star={self.star!r}: expected True, False or None")
        self.call_options()

    @classmethod
    def of(cls, door: str, keywords: Mapping[str, Any], defaults: CallOptions | None = None) -> MapOptions:
        """The options that a caller wrote.

        Args:
            door: The function that was called, for the error's text.
            keywords: What was written.
            defaults: Options of the executor's view, or of the decorated function.

        Raises:
            TypeError, ValueError: There is no such option, or its value makes no sense.
        """
        known = [field.name for field in cls.keywords()]
        unknown = sorted(set(keywords) - set(known))
        if unknown:
            raise TypeError(f"{door}() has no option {', '.join(unknown)} (there are {', '.join(known)})")
        origin = DEFAULT_OPTIONS if defaults is None else defaults
        return cls(**{**_shared(origin), **keywords}, origin=origin)

    @classmethod
    def keywords(cls) -> list[Field[Any]]:
        """What callers can say."""
        return [field for field in fields(cls) if field.name != "origin"]

    def call_options(self) -> CallOptions:
        """The options of each item's call."""
        return replace(self.origin, **_shared(self))

    def form(self) -> ItemForm:
        """How items become arguments."""
        return ItemForm(self.star, self.kwstar, tuple(self.args), dict(self.kwargs or {}))


def _shared(options: MapOptions | CallOptions) -> dict[str, Any]:
    """The options that maps and calls have in common."""
    return {field.name: getattr(options, field.name) for field in fields(CallOptions)}


def with_map_options(function: F) -> F:
    """Show the keywords of a map in the signature of a function that takes them as ``**options``."""
    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    known = {each.name for each in own}
    options = [_parameter(field) for field in MapOptions.keywords() if field.name not in known]
    function.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    return function


def _parameter(field: Field[Any]) -> inspect.Parameter:
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
