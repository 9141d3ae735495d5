"""How Sphinx makes the site: `make docs`.

Its pages are written for a forge: plain Markdown, with links that are paths between files. So the root of the checkout
is what Sphinx reads, where these paths lead to the same files, and the lists of ``docs/index.md`` are the table of
contents. Nothing is fetched while it builds.
"""

from __future__ import annotations

import re
import typing
from typing import TYPE_CHECKING, Any

import aioparallel

if TYPE_CHECKING:
    from sphinx.application import Sphinx

INDEX = "docs/index"

project = "aioparallel"
author = "The aioparallel authors"
project_copyright = author
version = release = aioparallel.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = INDEX
include_patterns = ["*.md", "docs/**"]
exclude_patterns = [".*", "benchmarks", "build", "dist", "examples", "src", "tests"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(asyncio|concurrent|pickle|typing)\b.*"),
    ("py:class", r"(?!aioparallel\b).*"),  # signatures name whatever there is
    ("py:class", r".*\._.*|aioparallel\.blocking\.[a-z]+\.\w+"),  # and private classes
    ("py:class", r".*\.[A-Z]"),  # and type variables
]
"""Our public names must lead somewhere. Those of other libraries do not: that would need the network."""

myst_heading_anchors = 4
"""Headings are reached by the names that a forge gives them."""

TOLD_ELSEWHERE = (
    "Executor, Future, Host, "  # ours, and those of concurrent.futures
    "ABC, AsyncIterator, BaseException, Generic, Iterator, OSError, Protocol, StrEnum, object, tuple"
)
autodoc_default_options = {"members": True, "inherited-members": TOLD_ELSEWHERE}
"""What a class has of private bases is told with it, and what it has of these is not."""
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_custom_sections = ["Cancellation", "What may still be running", ("Attributes", "params_style")]
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"aioparallel {release}"
html_copy_source = False
html_show_sphinx = False
templates_path = ["templates"]
html_additional_pages = {"index": "front.html"}
"""The pages keep their places below the root; whoever opens the root is led to the first of them."""


def add_contents(app: Sphinx, name: str, text: list[str]) -> None:
    """Put behind the index, for Sphinx alone, a table of contents for each of its lists of pages."""
    if name == INDEX:
        sections = re.split(r"^## ", text[0], flags=re.MULTILINE)[1:]
        text[0] += "".join(map(contents, sections))


def contents(section: str) -> str:
    """The hidden table of contents that says the same as a section with a list of pages."""
    heading, _, body = section.partition("\n")
    pages = re.findall(r"^- \[([^\]]+)\]\(([^)]+)\.(?:md|rst)\)", body, re.MULTILINE)
    listed = "\n".join(f"{title} <{page}>" for title, page in pages)
    return f"\n\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{listed}\n```\n" if pages else ""


def hide_private_bases(app: Sphinx, name: str, cls: type, options: object, bases: list[Any]) -> None:
    """Say what a class is of what can be named: in the place of a private base stands the nearest public one."""
    bases[:] = dict.fromkeys(map(nearest_public, bases))


def nearest_public(base: Any) -> Any:
    """A base class, without its parameters, or the first of its own bases that is not private."""
    line = getattr(typing.get_origin(base) or base, "__mro__", (base,))  # NamedTuple is a function
    return next(each for each in line if not each.__module__.startswith("aioparallel._"))


def name_type_variables(app: Sphinx, kind: str, name: str, obj: object, options: object, *texts: str | None) -> Any:
    """Say ``P`` for a type variable, which Python shows as ``~P``, and Sphinx cannot read in a signature."""
    return tuple(text and re.sub(r"~(?=[A-Z]\w*\b)", "", text) for text in texts)


def is_alias(app: Sphinx, kind: str, name: str, member: object, skip: bool, options: object) -> bool | None:
    """Leave out what named tuples say of their fields: it is the class that says it."""
    return True if (getattr(member, "__doc__", None) or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-bases", hide_private_bases)
    app.connect("autodoc-process-signature", name_type_variables)
    app.connect("autodoc-skip-member", is_alias)
