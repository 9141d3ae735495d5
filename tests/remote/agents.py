"""The executor's side of an agent on a real host."""

from __future__ import annotations

from typing import Any

from aioparallel import HostError
from aioparallel._workers.bootstrap import start_agent
from aioparallel._workers.channel import SshChannel
from aioparallel._workers.ssh import Connection
from tests import frames
from tests.tools import until


class Talk:
    """Talks with an agent by its local protocol, as far as that is needed to see that it is there."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.error: HostError | None = None
        self.channel: SshChannel

    def received(self, data: bytes) -> None:
        self.data += data

    def writable(self) -> None:
        pass

    def lost(self, error: HostError) -> None:
        self.error = error

    def say(self, **message: Any) -> None:
        self.channel.write([frames.message(**message)])

    async def ready(self) -> dict[str, Any]:
        """Have the agent open its shop, and wait until it is ready."""
        self.say(**frames.OPEN)
        await until(lambda: b"ready" in self.data or self.error)
        assert self.error is None, self.error
        return frames.messages_in(self.data)[0]


async def start(connection: Connection, seconds: float = 20.0) -> Talk:
    """Start an agent, and see that it is ready."""
    talk = Talk()
    talk.channel = await start_agent(connection, talk, seconds=seconds)
    try:
        ready = await talk.ready()
    except BaseException:
        talk.channel.abort()
        raise
    assert ready["pid"] == talk.channel.hello.pid
    return talk
