"""What the store refuses, and with which HTTP status."""

from __future__ import annotations

from typing import ClassVar


class Refused(Exception):
    """A request that the store answers with `status` and `{"message": text}`."""

    status: ClassVar[int] = 400

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class BadRequest(Refused):
    """The request is not what the interface defines."""


class LoginFailed(Refused):
    """The credentials or the token are not good."""

    status = 401

    def __init__(self, text: str = "Invalid username or password") -> None:
        super().__init__(text)


class AccessDenied(Refused):
    """The caller may not do this."""

    status = 403

    def __init__(self, text: str = "Access denied") -> None:
        super().__init__(text)


class Unknown(Refused):
    """There is nothing under this id."""

    status = 404


class Stale(Refused):
    """The revision is not the current one, or the id is taken."""

    status = 409


class SecretTooShort(Refused):
    """A login with a secret that can be no password and no token."""

    status = 412


class TooManyAttempts(Refused):
    """There were so many wrong passwords that the next try has to wait."""

    status = 429

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Too many wrong passwords: try again in {seconds} seconds")
        self.seconds = seconds


class Illegal(Refused):
    """A well-formed entity that must not exist, such as a circle of parents."""

    status = 422


class Busy(Refused):
    """There is no room for one more now."""

    status = 503


class NoWebsocket(Refused):
    """What is here is for websockets only."""

    status = 426
