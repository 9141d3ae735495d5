"""Crawl a site: coroutines fetch, politely and with retries; processes parse what has come; nothing is fetched twice.

The site is real HTML, the documentation that pydoc makes of the standard library, served by a real web server in a
thread, which refuses now and then as busy servers do.
"""

from __future__ import annotations

import asyncio
import pydoc
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urljoin, urlsplit

from aioparallel import CoroutineExecutor, Limit, ProcessExecutor, Retry, SmartFuture, wait_any

MODULES = ["json", "json.decoder", "json.encoder", "json.scanner", "heapq", "bisect", "html", "html.entities"]


# The site


class Site(BaseHTTPRequestHandler):
    """Serves a page for each module, and refuses every fifth request."""

    requests = 0
    renderer = threading.Lock()

    def do_GET(self) -> None:
        Site.requests += 1
        if Site.requests % 5 == 0:
            self._answer(503, "busy")
        elif self.path == "/":
            self._answer(200, "".join(f'<a href="/{name}.html">{name}</a>' for name in MODULES))
        elif (name := self.path[1:].removesuffix(".html")) in MODULES:
            with Site.renderer:
                self._answer(200, pydoc.HTMLDoc().document(pydoc.locate(name)))
        else:
            self._answer(404, "there is no such page")

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The crawler prints enough."""


# The crawler


class Busy(Exception):
    """The server wants to be left alone for a while."""


async def fetch(url: str) -> str:
    """A page, by a few lines of HTTP."""
    site = urlsplit(url)
    reader, writer = await asyncio.open_connection(site.hostname, site.port)
    try:
        writer.write(f"GET {site.path or '/'} HTTP/1.0\r\nHost: {site.hostname}\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
    status = int(head.split()[1])
    if status == 503:
        raise Busy(url)
    if status != 200:
        raise LookupError(f"{url}: {status}")
    return body.decode()


class Links(HTMLParser):
    """Collects what a page links to, and its words."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.words: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links |= {value for name, value in attrs if tag == "a" and name == "href" and value}

    def handle_data(self, data: str) -> None:
        self.words.update(re.findall(r"[a-z]{4,}", data.lower()))


def parse(url: str, text: str) -> tuple[set[str], Counter[str]]:
    """The pages of the same site that a page links to, and its words: work for a CPU."""
    page = Links()
    page.feed(text)
    links = {urljoin(url, link).partition("#")[0] for link in page.links}
    return {link for link in links if urlsplit(link).netloc == urlsplit(url).netloc}, page.words


async def crawl(start: str) -> AsyncIterator[tuple[str, Counter[str] | Exception]]:
    """Every page that can be reached, as soon as it has been parsed: its words, or why there are none."""
    polite = Limit(concurrency=3, key=lambda url: urlsplit(url).netloc)
    async with CoroutineExecutor() as io, ProcessExecutor(2) as cpus:
        fetching = io.options(limit=polite, retry=Retry(5, on=Busy, backoff=0.01), timeout=10)
        seen: set[str] = set()

        def visit(url: str) -> SmartFuture[tuple[set[str], Counter[str]]]:
            seen.add(url)
            return cpus.submit(parse, url, fetching.submit(fetch, url))  # a future is an argument like any other

        pending = {visit(start): start}
        while pending:
            async for done in wait_any(list(pending)):
                url = pending.pop(done)
                try:
                    links, words = await done
                except (LookupError, Busy, OSError) as error:
                    yield url, error
                    continue
                yield url, words
                pending |= {visit(link): link for link in sorted(links - seen)}


async def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        words: Counter[str] = Counter()
        pages, missing = [], []
        async for url, found in crawl(f"http://127.0.0.1:{server.server_port}/"):
            if isinstance(found, Exception):
                missing.append(urlsplit(url).path)
            else:
                pages.append(urlsplit(url).path)
                words += found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    print("pages:", len(pages), "all modules:", {f"/{name}.html" for name in MODULES} <= set(pages))
    print("each once:", len(pages) == len(set(pages)))
    print("links that lead nowhere:", len(missing) > 0)
    print("refused and asked again:", Site.requests > len(pages) + len(missing))
    print("the word 'decoder' was found:", words["decoder"] > 0)


if __name__ == "__main__":
    asyncio.run(main())
