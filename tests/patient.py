"""The command, whose workers leave a new connection for seconds to one that holds fewer, which may stand still."""

from __future__ import annotations

from bridge import cli, server

if __name__ == "__main__":
    server.LEAVE_SECONDS = 5.0
    cli.main()
