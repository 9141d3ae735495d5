"""Solve a word puzzle: find squares of words that read the same across and down, with all CPUs, and stop at the first.

The search is cut into one call for each first word. As soon as enough squares are found, the other searches are
stopped, those that run included.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator

from aioparallel import ProcessExecutor, parmap, wait_any

LIST = """
able acid aged also area army away baby back ball band bank base bath bear beat been beer bell best bird blow blue
boat body bone book born both bowl bulk burn bush busy cake call calm came camp card care case cash cast cell chat
chip city club coal coat code cold come cook cool cope copy core cost crew crop dark data date dawn days dead deal
dean dear debt deep deny desk dial diet disc disk does done door dose down draw drew drop drug dual duke dust duty
each earn ease east easy edge else even ever evil exit face fact fail fair fall farm fast fate fear feed feel feet
fell felt file fill film find fine fire firm fish five flat flow food foot ford form fort four free from fuel full
fund gain game gate gave gear gene gift girl give glad goal goes gold golf gone good gray grew grey grow gulf hair
half hall hand hang hard harm hate have head hear heat held hell help here hero high hill hire hold hole holy home
hope host hour huge hung hunt hurt idea inch into iron item jack jane jean john join jump jury just keen keep kent
kept kick kill kind king knee knew know lack lady laid lake land lane last late lead left less life lift like line
link list live load loan lock logo long look lord lose loss lost love luck made mail main make male many mark mass
matt meal mean meat meet menu mere mike mile milk mill mind mine miss mode mood moon more most move much must name
navy near neck need news next nice nick nine none nose note okay once only onto open oral over pace pack page paid
pain pair palm park part pass past path peak pick pink pipe plan play plot plug plus poll pool poor port post pull
pure push race rail rain rank rare rate read real rear rely rent rest rice rich ride ring rise risk road rock role
roll roof room root rose rule rush ruth safe said sake sale salt same sand save seat seed seek seem seen self sell
send sent sept ship shop shot show shut sick side sign site size skin slip slow snow soft soil sold sole some song
soon sort soul spot star stay step stop such suit sure take tale talk tall tank tape task team tech tell tend term
test text than that them then they thin this thus till time tiny told toll tone tony took tool tour town tree trip
true tune turn twin type unit upon used user vary vast very vice view vote wage wait wake walk wall want ward warm
wash wave ways weak wear week well went were west what when whom wide wife wild will wind wine wing wire wise wish
with wood word wore work yard yeah year your zero zone
"""
WORDS = LIST.split()


def squares(first: str) -> list[tuple[str, ...]]:
    """Every square whose first word is this one."""
    starting: dict[str, list[str]] = defaultdict(list)
    for word in WORDS:
        for length in range(5):
            starting[word[:length]].append(word)

    def extend(square: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if len(square) == 4:
            yield square
            return
        column = "".join(word[len(square)] for word in square)
        for word in starting[column]:
            yield from extend((*square, word))

    return list(extend((first,)))


async def main() -> None:
    async with ProcessExecutor() as pool:
        searches = {pool.submit(squares, word): word for word in WORDS}
        found: list[tuple[str, ...]] = []
        async with wait_any(searches, cancel_pending=True) as finished:  # leaving stops the other searches
            async for search in finished:
                found += await search
                if len(found) >= 3:
                    break
        stopped = sum(search.cancelled() for search in searches)
        print("found:", len(found) >= 3, "searches that were stopped:", stopped > 0)
        print("\n".join(found[0]))
        print("it reads the same down:", ["".join(column) for column in zip(*found[0], strict=True)] == list(found[0]))

        counts = await parmap(squares, WORDS, on=pool)  # or all of them, in the order of the words
        print("squares in all:", sum(map(len, counts)))


if __name__ == "__main__":
    asyncio.run(main())
