"""Sends e-mail through one SMTP server. https://www.rfc-editor.org/rfc/rfc5321

Rule: what fails before the server took the message was not sent, and is told so; what fails while it was taken may have
been sent, and is told so too. Neither addresses nor what the server said are passed on.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from bridge.config import SmtpServer
from bridge.errors import BusinessRule, MailFailed, MailTimeout

ANSWER_SECONDS = 15.0
REFUSED_FOR_GOOD = 500
"""From here on the server says that the same will be refused again."""


class Mail:
    """An SMTP server and who sends through it."""

    def __init__(self, server: SmtpServer, sender: str, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._server = server
        self._sender = sender
        self._answer_seconds = answer_seconds

    def send(self, to: str, subject: str, text: str) -> None:
        """Sends a message.

        Raises `BusinessRule` when the server never sends to this address, `MailFailed` when the message was not sent,
        `MailTimeout` when that is not known.
        """
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self._sender, to, subject
        message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain=self._server.host)
        message.set_content(text)
        with self._session() as session:
            try:
                session.send_message(message, to_addrs=[to])  # the header's may be read otherwise
            except smtplib.SMTPResponseException as e:
                raise MailFailed(f"The mail server refused the message with {e.smtp_code}.") from e
            except smtplib.SMTPRecipientsRefused as e:
                ((code, _),) = e.recipients.values()
                kind = BusinessRule if code >= REFUSED_FOR_GOOD else MailFailed
                raise kind(f"The mail server refused this address with {code}.") from e
            except smtplib.SMTPNotSupportedError as e:
                raise BusinessRule("The mail server takes no address with letters beyond ASCII.") from e
            except (smtplib.SMTPException, OSError) as e:
                raise MailTimeout(
                    "The mail server did not say whether it took the message: it may have been sent."
                ) from e

    def check(self) -> None:
        """Raises `MailFailed` when the server cannot be reached or takes no login."""
        with self._session():
            pass

    @contextmanager
    def _session(self) -> Iterator[smtplib.SMTP]:
        """Yields a session that is encrypted and logged in as far as the settings ask for it."""
        with closing(self._connected()) as session:
            self._begin(session)
            yield session
            with suppress(smtplib.SMTPException, OSError):
                session.quit()

    def _connected(self) -> smtplib.SMTP:
        with _translated():
            where, seconds = (self._server.host, self._server.port), self._answer_seconds
            if self._server.tls:
                return smtplib.SMTP_SSL(*where, timeout=seconds, context=self._context())
            return smtplib.SMTP(*where, timeout=seconds)

    def _begin(self, session: smtplib.SMTP) -> None:
        with _translated():
            if self._server.starttls:
                session.starttls(context=self._context())
            if self._server.user:
                session.login(self._server.user, self._server.password)

    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._server.ca_certs)


@contextmanager
def _translated() -> Iterator[None]:
    """Turns what fails before a message is sent into `MailFailed`."""
    try:
        yield
    except smtplib.SMTPAuthenticationError as e:
        raise MailFailed("The mail server refuses the login of BRIDGE_SMTP_URL.") from e
    except ssl.SSLError as e:
        raise MailFailed("There is no encrypted connection to the mail server that can be trusted.") from e
    except (smtplib.SMTPException, OSError, ValueError) as e:  # the last of what a server asks for at a login
        raise MailFailed(
            "The mail server cannot be reached, or does not do what BRIDGE_SMTP_URL says."
        ) from e
