"""The keywords of maps, said once."""

from __future__ import annotations

import inspect
import math
from dataclasses import fields
from typing import Any

import pytest

from aioparallel import Limit, Retry, parmap
from aioparallel._executors.mapoptions import MapKeywords, MapOptions
from aioparallel._executors.pool import Executor, View
from aioparallel._model.options import CallOptions


def test_type_checkers_and_programs_see_the_same_keywords() -> None:
    """The keywords that type checkers know are the options, but for ``errors``, on which the results' type depends."""
    assert {*MapKeywords.__annotations__, "errors"} == {field.name for field in MapOptions.keywords()}
    assert {field.name for field in fields(CallOptions)} <= set(MapKeywords.__annotations__)


def test_parmap_shows_all_keywords() -> None:
    """``help(parmap)`` shows every keyword with its default."""
    parameters = inspect.signature(parmap).parameters
    for field in MapOptions.keywords():
        assert parameters[field.name].default == field.default
        assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY
    assert not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())


@pytest.mark.parametrize("door", [Executor.map, View.map])
def test_other_doors_take_the_same(door: Any) -> None:
    """Executors and views take the same keywords."""
    assert {"errors", "options"} <= set(inspect.signature(door).parameters)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"errors": "skip"}, ValueError, "errors='skip'"),
        ({"chunksize": 0}, ValueError, "chunksize=0"),
        ({"chunksize": 1.5}, ValueError, "chunksize=1.5"),
        ({"chunksize": True}, ValueError, "chunksize=True"),
        ({"chunksize": "all"}, ValueError, "chunksize='all'"),
        ({"prefetch": 0}, ValueError, "prefetch=0"),
        ({"prefetch": "many"}, ValueError, "prefetch='many'"),
        ({"total": -1}, ValueError, "total=-1"),
        ({"args": "b"}, TypeError, r"\('b',\)"),
        ({"args": 5}, TypeError, "args=5"),
        ({"kwargs": [("a", 1)]}, TypeError, "kwargs="),
        ({"star": 1}, TypeError, "star=1"),
        ({"timeout": -1}, ValueError, "timeout=-1"),
        ({"retry": "3"}, TypeError, "retry='3'"),
        ({"priority": "high"}, TypeError, "priority='high'"),
        ({"limit": 3}, TypeError, "Limit"),
        ({"name": 3}, TypeError, "name=3"),
        ({"chunk_size": 3}, TypeError, "no option chunk_size .*chunksize"),
    ],
    ids=str,
)
def test_nonsense_is_refused(options: dict[str, Any], error: type[Exception], said: str) -> None:
    """A wrong option is refused by name, with what was expected."""
    with pytest.raises(error, match=said):
        MapOptions.of("map", options)


@pytest.mark.parametrize(
    "options",
    [
        {"prefetch": math.inf},
        {"prefetch": None},
        {"chunksize": "auto"},
        {"total": 0},
        {"args": [1]},
        {"limit": Limit(1)},
        {"retry": 2},
        {"progress": print},
    ],
    ids=str,
)
def test_what_makes_sense_is_taken(options: dict[str, Any]) -> None:
    """Every legal value is taken."""
    assert MapOptions.of("map", options)


def test_defaults_of_a_view_or_a_decorated_function() -> None:
    """Call options that were set before hold unless others are given."""
    defaults = CallOptions(timeout=5, retry=Retry(2), name="mine")
    options = MapOptions.of("map", {"timeout": 7}, defaults)
    assert (options.timeout, options.retry, options.name) == (7, Retry(2), "mine")
    assert options.call_options() == CallOptions(timeout=7, retry=Retry(2), name="mine")
