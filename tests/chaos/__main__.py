"""``python -m tests.chaos``: break everything for a while, and see whether the rules hold."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import time

from tests.chaos.campaign import Campaign, Settings


def main() -> int:
    """Run a campaign, print what it did, and fail if a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long at least (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=0, help="go on until so many calls have ended")
    parser.add_argument("--faults", type=int, default=0, help="go on until so much was broken")
    parser.add_argument("--seed", type=int, help="of chance; by default another one each time")
    parser.add_argument("--clients", type=int, default=24, help="how many call at a time (default: %(default)s)")
    parser.add_argument("--round", type=float, default=8.0, help="seconds after which pools are closed")
    parser.add_argument("--local", action="store_true", help="no remote hosts")
    parser.add_argument("--verbose", action="store_true", help="show what pools log")
    options = parser.parse_args()
    logging.getLogger("aioparallel").setLevel(logging.WARNING if options.verbose else logging.CRITICAL)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    settings = Settings(
        seconds=options.seconds,
        calls=options.calls,
        faults=options.faults,
        seed=seed,
        clients=options.clients,
        round_seconds=options.round,
        remote=not options.local,
    )
    print(f"seed {seed}, {options.seconds:g} s", flush=True)
    began = time.monotonic()
    campaign = asyncio.run(Campaign(settings).run())
    report(campaign, time.monotonic() - began)
    return 1 if campaign.checker.violations else 0


def report(campaign: Campaign, seconds: float) -> None:
    """Print the figures, and each broken rule."""
    checker = campaign.checker
    calls = len(checker.ends)
    print(f"{calls} calls in {len(campaign.peak)} rounds and {seconds:.0f} s, begun {campaign.begun} times")
    for title, counts in (("ends", checker.outcomes), ("faults", campaign.faults), ("pools", campaign.counts)):
        print(f"{title:7} {sum(counts.values()):6}: {', '.join(f'{n} {name}' for name, n in counts.most_common())}")
    print(f"memory  {', '.join(f'{each:.0f}' for each in campaign.peak[-10:])} MB after the last rounds")
    for each in checker.violations:
        print(f"BROKEN: {each}")
    print(f"{len(checker.violations)} rules broken" if checker.violations else "no rule was broken")


if __name__ == "__main__":
    sys.exit(main())
