"""The executor's side of an agent on a real host."""

from __future__ import annotations

from typing import Any

from aioparallel import HostError
from aioparallel._child import messages
from aioparallel._child.agent import MESSAGE
from aioparallel._workers.bootstrap import start_agent
from aioparallel._workers.channel import SshChannel
from aioparallel._workers.ssh import Connection
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
        text = messages.dumps(message)
        self.channel.write([MESSAGE.pack(len(text)) + text])

    async def ready(self) -> dict[str, Any]:
        """Have the agent open its shop, and wait until it is ready."""
        self.say(op="open", folder="")
        await until(lambda: b"ready" in self.data or self.error)
        assert self.error is None, self.error
        (length,) = MESSAGE.unpack_from(self.data)
        return messages.loads(bytes(self.data[MESSAGE.size + 1 : MESSAGE.size + length]))


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
