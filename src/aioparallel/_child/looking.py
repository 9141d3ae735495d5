"""Looking at a worker from outside, and what can be concluded although it goes on meanwhile.

The page says which call a worker runs (see :mod:`.page`). Whoever looks twice and sees it in the *same* call knows
that in between the worker touched neither its outbox nor a flag. So what was read in between is sure, and a flag that
was set before the second look was set before the worker comes to see it:

* A call that is to be stopped gets its flag first. If it has not begun, the worker gives it back in its turn; if it
  turns out to be the one that runs, the worker is killed for it (after one more look, with the worker stopped).
* Calls behind one that runs for ``PATIENCE`` seconds get their flags, so none of them will begin; at the next look
  they are surely given back, together with the answers that lie in the outbox. These do not wait behind it, either.
* A chunk whose item has not ended between two looks gets its flag, so it ends with that item; at the next look the
  items behind it surely have not begun.

Whoever sets a flag too late, when the call has ended or begun meanwhile, takes it down again; else the worker does.
"""

from __future__ import annotations

import math

from .page import CANCELLED, TAKEN_BACK
from .wire import ANSWER, WITHDRAWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .page import Page

LOOK_SECONDS = 0.002
"""The first look comes after so long, and so does the next one after something has changed ..."""
MAX_LOOK_SECONDS = 0.05
"""... and while nothing changes, looks become as rare as this."""
PATIENCE = 0.005
"""A call that runs so long lets nothing wait behind it."""
IDLE_LOOKS = 3
"""A worker that was seen without a call so often in a row is not looked at any more."""

KILL, ANSWERS, SPLIT = "kill", "answers", "split"
"""What a look may find: (KILL, call, with its stack), (ANSWERS, bytes as the worker would send them), (SPLIT, call,
first item that will not run)."""


class Watch:
    """What is wanted to be known of one worker, and was seen of it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.next_look = math.inf
        """When to look again (``time.monotonic``)."""
        self._interval = LOOK_SECONDS
        self._halting: dict[int, bool] = {}
        """Calls to be stopped, and whether their stack is wanted."""
        self._asked: set[int] = set()
        """Those of them for which a kill was found."""
        self._behind = 0
        """Up to this number calls may wait behind the one that runs, or are chunks."""
        self._told = 0
        """The call that ran when answers were told that it held up."""
        self._chunks = False
        self._flagged: set[int] = set()
        """Calls behind the one that runs, or that one if it is a chunk, whose flags are up since an earlier look."""
        self._last = 0
        self._last_item = -1
        self._split = 0
        self._idle = 0

    # What is wanted

    def halt(self, number: int, stack: bool) -> None:
        """Stop a call: it is given back if it has not begun, and killed if it runs."""
        if self.page.latest() > number:
            return  # it has ended, and its answer is on the way
        self.page.flag(number, CANCELLED)
        self._halting[number] = stack
        self.look_behind(number)

    def forget(self, number: int) -> None:
        """A call that was to be stopped has ended, or is surely given back."""
        if self.page.latest() >= number:
            self.page.flag(number, 0)  # else the worker has still to come to it, and must not begin it
        self._halting.pop(number, None)
        self._asked.discard(number)

    def spared(self, number: int) -> None:
        """A call was not killed, because it did not run any more when the worker was stopped."""
        self._asked.discard(number)
        self.next_look = 0.0

    def look_behind(self, number: int, chunks: bool = False) -> None:
        """Let nothing wait, up to this number, behind a long call, nor behind a long item if there are chunks."""
        self._behind = max(self._behind, number)
        self._chunks = self._chunks or chunks
        self._idle = 0
        self._interval = LOOK_SECONDS
        self.next_look = 0.0

    # What is seen

    def look(self, now: float) -> list[tuple[str, Any, Any]]:
        """Look once; says what was found, and sets when to look again."""
        number, began = self.page.running()
        found: list[tuple[str, Any, Any]] = []
        if number in self._halting and number not in self._asked:
            self._asked.add(number)
            found.append((KILL, number, self._halting[number]))
        stays = number == self._last
        if not stays:
            self._last, self._last_item = number, -1
            self._forget_flags()
        elif number:
            if self._holds_up(number) and now - began > PATIENCE:
                found += self._free_what_waits(number)
            if self._chunks:
                found += self._split_chunk(number)
        self._idle = 0 if number else self._idle + 1
        self._interval = min(2 * self._interval, MAX_LOOK_SECONDS) if stays else LOOK_SECONDS
        self.next_look = now + self._interval if self._is_curious(number) else math.inf
        return found

    def _is_curious(self, number: int) -> bool:
        if self._halting.keys() - self._asked:
            return True
        if not number:
            return self._behind > 0 and self._idle < IDLE_LOOKS
        return self._holds_up(number) or (self._chunks and self._behind == number and self._split != number)

    def _holds_up(self, number: int) -> bool:
        """Whether something waits for the call that runs: calls behind it, or answers of those before it."""
        return self._behind > number or (self._behind == number and self._told != number)

    def _forget_flags(self) -> None:
        """Those that the worker has passed are down by now, unless they were set in its very last moment."""
        for each in self._flagged:
            if each < self.page.latest():
                self.page.flag(each, 0)
        self._flagged.clear()

    def _free_what_waits(self, number: int) -> list[tuple[str, Any, Any]]:
        page = self.page
        behind = range(number + 1, self._behind + 1)
        unsent = page.unsent()
        fresh = [each for each in behind if each not in self._flagged]
        for each in fresh:
            page.flag(each, TAKEN_BACK)
        if page.running()[0] != number:
            for each in fresh:
                if each not in self._halting:
                    page.flag(each, 0)
            return []
        if fresh:
            self._flagged.update(fresh)
            return []
        self._behind = self._told = number
        self._flagged.difference_update(behind)
        answers = unsent + b"".join(ANSWER.pack(each, 0, WITHDRAWN, 0, 0) for each in behind)
        return [(ANSWERS, answers, None)] if answers else []

    def _split_chunk(self, number: int) -> list[tuple[str, Any, Any]]:
        page = self.page
        item = page.notes.count()
        stays, self._last_item = item == self._last_item, item
        if not stays or self._split == number:
            return []
        if number not in self._flagged:
            page.flag(number, TAKEN_BACK)
            if page.running()[0] == number:
                self._flagged.add(number)
            else:
                page.flag(number, 0)
            return []
        if page.running()[0] != number:
            return []
        self._flagged.discard(number)
        self._split = number
        return [(SPLIT, number, item + 1)]
