"""An SMTP server in a process of its own: what it takes it writes into a folder, a file for each message.

What it does with a message is said by the name of the recipient: `refused`, `broken`, `slow`; anybody else gets it.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import time
import uuid
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult


class Handler:
    """Takes messages."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("refused@"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        to = envelope.rcpt_tos[0]
        if to.startswith("slow@"):
            await asyncio.sleep(30)
        if to.startswith("full@"):
            return "452 no room"
        draft = self._folder / f".{uuid.uuid4()}"
        draft.write_bytes(envelope.content.replace(b"\r\n", b"\n"))
        draft.rename(self._folder / f"{time.time_ns()}.eml")
        if to.startswith("broken@"):
            server.transport.abort()
        return "250 taken"


async def serve(arguments: argparse.Namespace) -> None:
    context = None
    if arguments.certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(arguments.certificate)
    said: dict[str, Any] = {"hostname": "localhost"}
    if arguments.login:
        login, password = arguments.login.encode().split(b":")

        def right(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
            return AuthResult(success=(data.login, data.password) == (login, password), handled=False)

        said |= {"authenticator": right, "auth_required": True, "auth_require_tls": not arguments.smtps}
    if context is not None and not arguments.smtps:
        said |= {"tls_context": context, "require_starttls": True}
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: SMTP(Handler(arguments.folder), **said),
        "127.0.0.1",
        arguments.port,
        ssl=context if arguments.smtps else None,
    )
    await listening.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--certificate", help="a file with a key and its certificate")
    parser.add_argument("--smtps", action="store_true", help="encrypted from the beginning")
    parser.add_argument("--login", help="login:password")
    asyncio.run(serve(parser.parse_args()))
