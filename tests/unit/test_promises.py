"""What three older libraries promised for maps, where they hung or lost data, and the test that shows that it holds here.

(What pyutils promised for calls, futures and executors is a module of tests of its own: ``contract/test_pyutils.py``.)
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

MAPS = "contract/test_maps.py"
OLDER = "contract/test_older_maps.py"
STATEFUL = "contract/test_stateful.py"
PICKLING = "faults/test_pickling.py"
PARMAP = "unit/verbs/test_maps.py"
SPLIT = "unit/verbs/test_split.py"
DISTRIBUTE = "unit/verbs/test_distribute.py"
PROGRESS = "unit/executors/test_progress.py"
EXAMPLES = "examples/test_maps.py"

PARMAPPER = [
    ("list(parmap(f, items)) gives the results in order", MAPS, "test_await_gives_a_list"),
    ("a simple loop is replaced; items may come from anything that can be iterated over", MAPS, "test_any_iterable"),
    ("lambdas and closures are mapped, with any start method", MAPS, "test_lambdas_and_closures"),
    ("... trap: spawn and forkserver ended in an UnboundLocalError", OLDER, "test_any_start_method"),
    ("trap: not even the arguments were looked at before the first result", MAPS, "test_wrong_options_fail_at_once"),
    ("N processes", PARMAP, "test_workers_mean_a_pool_of_its_own"),
    ("... trap: few items, or large chunks, were computed by one of them", OLDER, "test_few_items_are_shared_out"),
    ("Nt threads in each process", PARMAP, "test_threads_inside_processes"),
    ("... trap: a barrier after each chunk", OLDER, "test_no_barrier_between_threads_of_a_process"),
    ("N=1 runs here, with the same rules for errors and laziness", MAPS, "test_first_failure_is_raised"),
    (
        "chunks are sized, also without a length, without a warning",
        PARMAP,
        "test_unsized_input_needs_no_total_for_chunks",
    ),
    (
        "results are cached until they are iterated over: now the input waits",
        MAPS,
        "test_slow_consumer_stops_the_source",
    ),
    ("... trap: leaving early computed everything, or never ended", MAPS, "test_leaving_cancels_what_runs"),
    ("... trap: an input without an end was read for ever", MAPS, "test_endless_input_is_pulled_by_at_most_prefetch"),
    (
        "... trap: an error in the input was printed, and then nothing happened",
        MAPS,
        "test_error_of_the_input_surfaces",
    ),
    ("ordered=True re-orders while others go on", MAPS, "test_one_slow_item_does_not_idle_the_others"),
    ("ordered=False gives results as they come", MAPS, "test_unordered_results_come_as_they_are_ready"),
    ("exception='raise' ends all workers and raises", MAPS, "test_first_failure_is_raised"),
    ("... trap: the default hung as soon as anything was queued", MAPS, "test_failure_with_500_items_queued_is_prompt"),
    ("exception='return'", MAPS, "test_return_gives_an_outcome_for_every_item"),
    ("exc.seq_index is the item's place", MAPS, "test_first_failure_is_raised"),
    ("... trap: an unknown mode, or wrong arguments, hung", MAPS, "test_wrong_options_fail_at_once"),
    ("... trap: a worker that died hung it", MAPS, "test_dead_worker_fails_its_item_only"),
    ("... trap: a result that does not pickle hung it", MAPS, "test_result_that_cannot_be_pickled_fails_alone"),
    ("... trap: sys.exit in a worker hung it", MAPS, "test_exit_in_an_item"),
    ("star, kwstar, args, kwargs: the six rows; keywords of the item win", MAPS, "test_star_and_kwstar"),
    ("... an item of another form fails by itself", MAPS, "test_item_of_another_form"),
    ("progress=True or a label, counted in items", PROGRESS, "test_label"),
    ("... with tqdm, if that is installed", PROGRESS, "test_real_tqdm"),
    ("... trap: it wrote to standard output", PROGRESS, "test_rich_bar"),
    ("total= stands in for a length", MAPS, "test_length"),
    ("a map inside a worker", PARMAP, "test_map_in_a_worker_runs_in_place"),
    ("ReturnProcess", OLDER, "test_return_process"),
    ("ParEval(fun)(X) replaces fun(X)", SPLIT, "test_replaces_a_call_of_the_function"),
    ("n_chunks, n_eval and n_min cut balanced parts; trap: parts without rows", SPLIT, "test_sizes"),
    ("... of lists as well", SPLIT, "test_lists"),
    ("... trap: only along the first axis", SPLIT, "test_any_axis"),
    ("... trap: an empty input divided by zero", SPLIT, "test_empty_input"),
    ("... trap: a function that returns a number", SPLIT, "test_function_that_returns_a_single_value"),
    ("pipelines of generators", PARMAP, "test_pipeline_with_plain_generators"),
    ("the examples of its README", EXAMPLES, "test_an_example_shows_what_it_is_for"),
]

PY_STATEFUL_MAP = [
    (
        "workers are initialised in their own process; trap: in the parent",
        STATEFUL,
        "test_state_is_built_in_its_worker_once",
    ),
    ("shared arguments, and those of each worker, which win", STATEFUL, "test_worker_kwargs_win_over_shared_ones"),
    ("as many of these as there are workers", STATEFUL, "test_worker_kwargs_of_another_length"),
    ("stateless workers; trap: no builtins, partials, objects", STATEFUL, "test_plain_function_needs_no_state"),
    ("one argument, several, or keyword arguments", STATEFUL, "test_three_ways_of_passing"),
    ("... an item of another form fails with a TypeError", STATEFUL, "test_item_of_another_form_fails_alone"),
    ("unknown options are refused", STATEFUL, "test_wrong_options"),
    ("results carry the index of their item", STATEFUL, "test_exceptions_deferred"),
    ("trap: a pool could be mapped once", STATEFUL, "test_pool_may_be_mapped_again_and_again"),
    ("... and a map that was not iterated over kept its workers", OLDER, "test_map_that_is_never_iterated"),
    ("len() where the input has one, for a progress bar", STATEFUL, "test_length_and_order"),
    ("lazy, also without an end", STATEFUL, "test_lazy_and_endless_input"),
    (
        "ordered and unordered; trap: ordered had a barrier after each chunk",
        STATEFUL,
        "test_one_straggler_idles_nobody",
    ),
    ("DEFERRED", STATEFUL, "test_exceptions_deferred"),
    ("IMMEDIATE; trap: computed results were dropped", STATEFUL, "test_exceptions_immediate"),
    ("IMMEDIATE_WAIT_OTHERS; trap: what was queued ran, too", STATEFUL, "test_exceptions_wait_for_others"),
    ("... trap: large results deadlocked it", OLDER, "test_large_results_of_those_that_are_waited_for"),
    ("... trap: StopIteration ended the results", OLDER, "test_stop_iteration"),
    ("join_timeout: the end waits for nobody who is stuck", MAPS, "test_leaving_cancels_what_runs"),
    ("threads; trap: after a break the program never ended", OLDER, "test_program_ends_after_leaving_early"),
    ("... trap: everything was pickled between threads", STATEFUL, "test_nothing_is_pickled_between_threads"),
    (
        "trap: a worker that exits, or results that do not pickle",
        STATEFUL,
        "test_exit_and_unpicklable_results_hang_nothing",
    ),
    ("trap: a worker that dies", STATEFUL, "test_replaced_worker_builds_a_fresh_state_with_its_index"),
    ("trap: an item that does not pickle", MAPS, "test_item_that_cannot_be_pickled_fails_alone"),
    ("trap: an exception whose class wants more arguments", PICKLING, "test_exception_with_other_arguments"),
    ("trap: a worker that fails at once swallowed the work", STATEFUL, "test_failing_worker_does_not_swallow_the_work"),
    ("the example of its README", EXAMPLES, "test_an_example_shows_what_it_is_for"),
]

JUST_DISTRIBUTE = [
    ("positional arguments are distributed, keyword arguments are constants", DISTRIBUTE, "test_element_by_element"),
    (
        "trap: unknown jobs gave None, and the bare decorator failed late",
        DISTRIBUTE,
        "test_wrong_options_fail_when_decorating",
    ),
    ("every job has an alias", DISTRIBUTE, "test_jobs_and_their_aliases"),
    ("def f(*args); trap: parameters without hints were refused", DISTRIBUTE, "test_without_type_hints"),
    ("... any number of sequences", DISTRIBUTE, "test_any_number_of_sequences"),
    ("... trap: methods", DISTRIBUTE, "test_methods"),
    ("trap: generators were refused", DISTRIBUTE, "test_generators_and_other_inputs_without_a_length"),
    ("trap: no arguments gave [] or an odd error", DISTRIBUTE, "test_nothing_to_distribute"),
    ("autobatch: sequences of equal length are cut alike", DISTRIBUTE, "test_sequences_are_cut_into_aligned_batches"),
    ("... trap: list[int] and other hints were TypeErrors", DISTRIBUTE, "test_hints_in_any_legal_form"),
    ("... trap: str, bytes and dicts were cut into batches", DISTRIBUTE, "test_names_and_data_of_a_dict"),
    ("... trap: nested data was batched again", DISTRIBUTE, "test_nested_data_is_not_batched_again"),
    ("autobatch=False: batches by hand", DISTRIBUTE, "test_batches_by_hand"),
    (
        "mixed hints: each element of the short with its run of the long",
        DISTRIBUTE,
        "test_each_element_of_the_short_goes_with_a_run_of_the_long",
    ),
    (
        "... trap: scalars arrived as tuples of one",
        DISTRIBUTE,
        "test_each_element_of_the_short_goes_with_a_run_of_the_long",
    ),
    ("other lengths are an error; trap: elements were dropped", DISTRIBUTE, "test_lengths_that_do_not_fit"),
    ("workers=None; trap: zero workers, and a second's stall", DISTRIBUTE, "test_nothing_is_measured_when_decorating"),
    ("compute: processes", DISTRIBUTE, "test_compute"),
    ("... trap: [None, ...] for fewer items than workers", DISTRIBUTE, "test_fewer_items_than_workers"),
    (
        "io: threads; trap: async functions were never awaited",
        DISTRIBUTE,
        "test_functions_that_do_not_fit_fail_when_decorating",
    ),
    (
        "web: so many coroutines; trap: not inside a running loop",
        DISTRIBUTE,
        "test_web_requests_of_a_coroutine_function",
    ),
    ("... trap: plain functions ran one after the other", DISTRIBUTE, "test_web_is_concurrent"),
    ("ray: an error that says what is missing", DISTRIBUTE, "test_job_whose_executor_is_missing"),
    ("the first failure is raised", DISTRIBUTE, "test_error_in_a_call"),
    ("the signature says Sequence[T] and list[R]", DISTRIBUTE, "test_signature"),
    ("name, documentation and __wrapped__ are kept", DISTRIBUTE, "test_identity"),
    ("the examples of its README", EXAMPLES, "test_an_example_shows_what_it_is_for"),
]


@pytest.mark.parametrize(
    "promises", [PARMAPPER, PY_STATEFUL_MAP, JUST_DISTRIBUTE], ids=["parmapper", "stateful", "distribute"]
)
def test_every_promise_has_a_test(promises: list[tuple[str, str, str]]) -> None:
    """Each promise, and each trap, is shown by a test that exists."""
    missing = [f"{promise}: {module}::{test}" for promise, module, test in promises if test not in _tests_of(module)]
    assert not missing, "\n".join(missing)


def _tests_of(module: str) -> set[str]:
    tree = ast.parse((TESTS / module).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
