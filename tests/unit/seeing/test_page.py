"""The page of a run: self-contained, safe, and drawn by a real browser where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from aioparallel._seeing import page as pages
from aioparallel._seeing.page import page
from aioparallel._seeing.runs import Run, TracedCall

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVIL = '</script><img src=x onerror="document.title=1">'


def run(calls: int = 50, **fields: Any) -> Run:
    """A run with calls on two lanes, whose names are hostile."""
    found = Run(
        began=1e9,
        machines={1: EVIL},
        lanes={(1, 1): "a", (1, 2): EVIL},
        marks=[(1.0, (1, 1), f"died: {EVIL}")],
        counts=[(0.5, 1, 10, 2)],
        **fields,
    )
    for n in range(calls):
        outcome = {"outcome": "failed", "error": f"E: {EVIL}"} if n % 10 == 0 else {"outcome": "done"}
        found.calls.append(TracedCall((1, 1 + n % 2), EVIL, n * 0.1, 0.09, {"id": n, **outcome}))
    return found


class Tags(HTMLParser):
    """The tags of a page, and what they refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in {"src", "href", "onerror"}]


def test_self_contained_and_safe() -> None:
    """The page refers to nothing outside, and names cannot become part of it."""
    text = page(run(), EVIL)
    tags = Tags()
    tags.feed(text)
    assert tags.references == []
    assert "img" not in tags.tags
    assert tags.tags.count("script") == 2
    assert not re.search(r"https?://|url\(", text)
    assert "<!--" not in text.replace("<!doctype", "")


def test_all_that_is_known() -> None:
    """The page has the figures, failures and marks, and says when the trace has no end."""
    text = page(run(), "run.json.gz")
    assert "<title>run.json.gz</title>" in text
    assert "<b>50</b><span>calls</span>" in text
    assert "<td>5</td>" in text
    assert "died: &lt;/script&gt;" in text
    assert "The trace has no end" in text
    assert "The trace has no end" not in page(run(is_complete=True), "x")
    assert "Nothing failed." in page(Run(), "x")


def test_attempts_are_not_calls() -> None:
    """A call that was tried again, or raced with a copy, is counted once, by its end."""
    found = Run(lanes={(1, 1): "a"})
    for outcome in ({"outcome": "failed", "again": True}, {"outcome": "lost the race"}, {"outcome": "done"}):
        found.calls.append(TracedCall((1, 1), "f", 0.0, 0.1, {"id": 1, **outcome}))
    text = page(found, "x")
    assert "<b>1</b><span>calls</span>" in text
    assert "<b>0</b><span>failed</span>" in text
    assert "<b>1</b><span>retried</span>" in text


def test_what_ran_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that never ended are listed with their lanes, the longest in front; without any there is no list."""
    found = run(2)
    for n, name in enumerate(("late", "early", "latest")):
        found.calls.append(
            TracedCall((1, 1), name, (2.0, 1.0, 3.0)[n], 4.0 - n, {"id": 7 + n, "outcome": "unfinished"})
        )
    text = page(found, "x")
    assert "<b>3</b><span>unfinished</span>" in text
    section = text.partition('<section id="unfinished">')[2].partition("</section>")[0]
    assert re.findall(r"<tr><td>(\w+)</td><td>(\d+)</td><td>a</td>", section) == [
        ("early", "8"),
        ("late", "7"),
        ("latest", "9"),
    ]
    monkeypatch.setattr(pages, "UNFINISHED", 1)
    assert "and 2 more" in page(found, "x")
    assert "unfinished</span>" not in page(run(2), "x")
    assert 'id="unfinished"' not in page(run(2), "x")


def test_large_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many calls the longest are drawn, and the page says how many are left out."""
    monkeypatch.setattr(pages, "MOST_CALLS", 10)
    assert '"left_out":40' in page(run(), "x")


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
@pytest.mark.leak_check(processes=False, fds=False)  # the browser's helpers end when they like
def test_in_a_browser(tmp_path: Path) -> None:
    """A real browser draws every call, runs nothing that names try to smuggle in, and reports no error."""
    file = tmp_path / "page.html"
    shown = run()
    shown.calls[-1].args["outcome"] = "unfinished"
    file.write_text(page(shown, "a title"), encoding="utf-8")
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr",
            "--virtual-time-budget=2000",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert 'data-drawn="50"' in done.stdout
    assert "<title>a title</title>" in done.stdout
    assert "Uncaught" not in done.stderr
