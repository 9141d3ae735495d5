"""The script that takes calls apart still finds all parts where it looks for them."""

from __future__ import annotations

import pytest

from benchmarks import anatomy


def test_the_parts_of_a_call(capsys: pytest.CaptureFixture[str]) -> None:
    """Every part of a call is found, and takes a time."""
    assert anatomy.main(["--calls", "20"]) == 0
    said = capsys.readouterr().out
    figures = [float(line.split(" us ")[0]) for line in said.splitlines() if " us  " in line]
    assert len(figures) >= 28
    assert all(figure > -1.0 for figure in figures)
    assert "calls travelled in" in said
