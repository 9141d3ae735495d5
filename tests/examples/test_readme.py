"""The README: its code runs, and its links lead somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.blocks import ROOT, Block, anchors_of, blocks_of, check, links_of

README = ROOT / "README.md"


@pytest.mark.parametrize("block", [block for block in blocks_of(README) if not block.needs], ids=str)
def test_readme_code_runs(block: Block, tmp_path: Path) -> None:
    """Every piece of code in the README runs as it stands, and prints what the README says."""
    check(block, tmp_path)


def test_readme_links() -> None:
    """Every link of the README leads to a file and a heading that are there."""
    for file, anchor in links_of(README):
        assert file.exists(), file
        assert not anchor or anchor in anchors_of(file), f"{file}#{anchor}"
