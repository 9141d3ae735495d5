"""What is saved on asyncssh's way of a small message, and what is not."""

from __future__ import annotations

from typing import Any

import asyncssh
import pytest
from asyncssh.constants import MSG_IGNORE

from aioparallel._workers.savings import save_on_connection
from aioparallel._workers.ssh import Connections
from aioparallel.testing import SshHost

Session = asyncssh.SSHClientSession


async def test_no_empty_packets(connections: Connections, host: SshHost) -> None:
    """With ciphers that need no empty packets in between, none are sent."""
    one = await connections.connect(host)
    assert one.ssh.get_extra_info("send_cipher") == "aes128-gcm@openssh.com"
    sent: list[int] = []
    encrypt = one.ssh._send_encryption.encrypt_packet

    def seen(number: int, header: bytes, packet: bytes) -> Any:
        sent.append(packet[1])
        return encrypt(number, header, packet)

    one.ssh._send_encryption.encrypt_packet = seen
    await one.open_session("true", Session)
    assert sent
    assert MSG_IGNORE not in sent


def test_old_ciphers_keep_them() -> None:
    """With ciphers that need them, they are sent."""

    class Old:
        def get_extra_info(self, name: str) -> str:
            return "aes128-cbc"

        def send_packet(self, *_: object) -> None:
            pass

    old = Old()
    save_on_connection(old)
    assert "send_packet" not in vars(old)


async def test_packets_are_described_for_those_who_read_it(
    connections: Connections, host: SshHost, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets are logged when asyncssh is told to, and cost nothing otherwise."""
    caplog.set_level("DEBUG", "asyncssh")
    one = await connections.connect(host)
    await one.open_session("true", Session)
    assert "Sent MSG_CHANNEL_REQUEST" not in caplog.text
    await one.aclose()
    monkeypatch.setattr("asyncssh.logging.SSHLogger._debug_level", 3)
    two = await connections.connect(host)
    await two.open_session("true", Session)
    assert "Sent MSG_CHANNEL_REQUEST" in caplog.text
