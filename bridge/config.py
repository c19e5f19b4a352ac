"""Settings: one frozen value, read from the environment once, at start."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from email.utils import formataddr, parseaddr
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

SHORTEST_SECRET = 16


class ConfigError(Exception):
    """A setting has a value that cannot be used; the text names the setting."""


def web_url(text: str) -> str:
    """Returns the address of a server, without a slash at its end. Raises `ValueError` for what is none."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and _is_host(parts.hostname or "") and (parts.port or 1)
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or not text.isprintable() or " " in text:
        raise ValueError("must be an http or https URL")
    if "@" in parts.netloc:
        raise ValueError("must not hold credentials")
    return text.rstrip("/")


def _is_host(text: str) -> bool:
    """Whether a name can be asked for: none of its labels is empty or too long. Raises `ValueError` otherwise."""
    return bool(text.encode("idna"))


def _icure_url(text: str) -> str:
    url = web_url(text)
    if url.endswith("/rest/v2"):
        raise ValueError("must be given without /rest/v2")
    return url


def _zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as e:
        raise ValueError("is not a known IANA time zone") from e


def _positive(text: str) -> int:
    number = int(text) if re.fullmatch("[0-9]{1,12}", text) else 0
    if number < 1:
        raise ValueError("must be a whole number above 0, of at most 12 digits")
    return number


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _proxies(text: str) -> tuple[str, ...]:
    for word in _words(text):
        try:
            ip_network(word, strict=False)
        except ValueError as e:
            raise ValueError("must be addresses or networks, e.g. 10.0.0.0/8") from e
    return _words(text)


def _hosts(text: str) -> tuple[str, ...]:
    for word in _words(text):
        if not re.fullmatch(
            r"([a-z0-9_]([a-z0-9_\-]*[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_\-]*[a-z0-9_])?|[0-9a-f:.]+", word
        ):
            raise ValueError(
                "must be names or addresses of hosts in lower case, without port, e.g. lab.intern"
            )
    return _words(text)


def _origins(text: str) -> tuple[str, ...]:
    for word in _words(text):
        if word != "*" and not re.fullmatch(r"https?://[A-Za-z0-9.\-]+(:[0-9]{1,5})?", word):
            raise ValueError("must be origins, e.g. https://app.example.org, or *")
    return _words(text)


def _uri(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.\-]*:[!-~]+", text):
        raise ValueError("must be a URI")
    return text


def _folder(text: str) -> Path:
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise ValueError("must name a directory")
    return path


def _lenient_or_strict(text: str) -> str:
    if text not in ("lenient", "strict"):
        raise ValueError("must be lenient or strict")
    return text


def _on_or_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError("must be on or off")
    return text == "on"


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file() or not os.access(path, os.R_OK):
        raise ValueError("must name a readable file")
    return path


def _secret(text: str) -> Path:
    path = _file(text)
    if path.stat().st_size < SHORTEST_SECRET:
        raise ValueError(f"must name a file of at least {SHORTEST_SECRET} random bytes")
    return path


TLS_FILES = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}


def _state_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = (
            parts.scheme in ("redis", "rediss")
            and re.fullmatch(
                r"([\w-]{1,63}\.)*[\w-]{1,63}\.?|[0-9a-f.]*:[0-9a-f:.]*", parts.hostname or "", re.ASCII
            )
            and parts.port != 0
            and re.fullmatch("/?[0-9]{0,5}", parts.path)
            and all(name in TLS_FILES and file for name, file in parse_qsl(parts.query, True, True))
            and not parts.fragment
            and re.fullmatch("[!-~]+", text)
        )
    except ValueError:
        good = False
    if not good:
        raise ValueError(
            "must be a redis or rediss URL, e.g. rediss://:password@redis.example.org:6379/0"
            " (of the password, what is not a letter or digit as %XX)"
        )
    return text


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where e-mail is sent through, and how."""

    host: str
    port: int
    tls: bool
    """Whether the connection is encrypted from its beginning."""
    starttls: bool
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    ca_certs: str | None = None
    """A file with the authorities to trust instead of the system's."""


SMTP_PORTS = {"smtps": 465, "smtp": 587}


def _smtp_server(text: str) -> SmtpServer:
    try:
        parts = urlsplit(text)
        options = dict(parse_qsl(parts.query, True, True))
        good = (
            parts.scheme in SMTP_PORTS
            and re.fullmatch(r"[\w.\-]{1,253}|[0-9a-f.]*:[0-9a-f:.]*", parts.hostname or "", re.ASCII)
            and _is_host(parts.hostname or "")
            and parts.port != 0
            and parts.path in ("", "/")
            and not parts.fragment
            and options.keys() <= {"starttls", "ca_certs"}
            and options.get("starttls", "yes") in ("yes", "no")
            and bool(parts.username) == bool(parts.password)
            and re.fullmatch("[!-~]+", text)
        )
    except ValueError:
        good = False
    if not good:
        raise ValueError(
            "must be an smtp or smtps URL, e.g. smtp://user:password@mail.example.org:587"
            " (of user and password, what is not a letter or digit as %XX)"
        )
    tls, starttls = parts.scheme == "smtps", parts.scheme == "smtp" and options.get("starttls") != "no"
    if parts.username and not (tls or starttls):
        raise ValueError("must not send a password in clear: leave out starttls=no, or the user")
    if not unquote(f"{parts.username}{parts.password}").isascii():
        raise ValueError("must have a user and a password of ASCII characters: others cannot be sent")
    ca_certs = options.get("ca_certs")
    return SmtpServer(
        host=str(parts.hostname),
        port=parts.port or SMTP_PORTS[parts.scheme],
        tls=tls,
        starttls=starttls,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        ca_certs=None if ca_certs is None else str(_file(ca_certs)),
    )


def _sender(text: str) -> str:
    name, address = parseaddr(text)
    if (
        not re.fullmatch(r"[\w.!#$%&'*+/=?^`{|}~\-]+@[A-Za-z0-9.\-]+", address, re.ASCII)
        or not text.isprintable()
    ):
        raise ValueError("must be an e-mail address, e.g. Clinic <no-reply@example.org>")
    return formataddr((name, address))


def _setting(
    name: str, default: Any, read: Callable[[str], Any], meaning: str, *, is_secret: bool = False
) -> Any:
    return field(
        default=default, repr=not is_secret, metadata={"name": name, "read": read, "meaning": meaning}
    )


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, with their units in the names. `docs/configuration.md` lists them; a test keeps it so."""

    icure_url: str = _setting(
        "ICURE_URL", "", _icure_url, "iCure server, without /rest/v2; empty: embedded store"
    )
    data_dir: Path = _setting(
        "BRIDGE_DATA_DIR", Path("data"), _folder, "embedded store, demo accounts, state"
    )
    state_url: str = _setting(
        "BRIDGE_STATE_URL", "", _state_url, "Redis for the state of several hosts", is_secret=True
    )
    secret_file: Path | None = _setting("BRIDGE_SECRET_FILE", None, _secret, "deployment secret")
    public_url: str = _setting("BRIDGE_PUBLIC_URL", "", web_url, "base of Location, next links, fullUrl")
    trusted_proxies: tuple[str, ...] = _setting(
        "BRIDGE_TRUSTED_PROXIES", (), _proxies, "whose X-Forwarded-* count"
    )
    cors_origins: tuple[str, ...] = _setting("BRIDGE_CORS_ORIGINS", (), _origins, "browser front ends")
    hook_hosts: tuple[str, ...] = _setting(
        "BRIDGE_HOOK_HOSTS", (), _hosts, "inner hosts to which notifications may go, with http too"
    )
    timezone: ZoneInfo = _setting(
        "BRIDGE_TIMEZONE",
        ZoneInfo("UTC"),
        _zone,
        "zone of iCure's zoneless times when nothing better is known",
    )
    encrypted_fields_file: Path | None = _setting(
        "BRIDGE_ENCRYPTED_FIELDS_FILE", None, _file, "manifests in the SDK's syntax"
    )
    key_ttl_seconds: int = _setting(
        "BRIDGE_KEY_TTL_SECONDS", 3600, _positive, "how long a key stays after its last use"
    )
    key_max_age_seconds: int = _setting(
        "BRIDGE_KEY_MAX_AGE_SECONDS", 43200, _positive, "how long a key stays in all"
    )
    max_body_bytes: int = _setting("BRIDGE_MAX_BODY_BYTES", 67108864, _positive, "larger bodies: 413")
    max_bundle_entries: int = _setting("BRIDGE_MAX_BUNDLE_ENTRIES", 20000, _positive, "more entries: 413")
    identifier_system: str = _setting(
        "BRIDGE_IDENTIFIER_SYSTEM",
        "https://dxm.icure.dev",
        _uri,
        "system of the identifier that keeps a client's own resource id",
    )
    references: str = _setting(
        "BRIDGE_REFERENCES", "lenient", _lenient_or_strict, "strict: an unknown reference is refused"
    )
    validation: str = _setting(
        "BRIDGE_VALIDATION", "lenient", _lenient_or_strict, "strict: nothing beyond R4 is accepted"
    )

    access_log: bool = _setting(
        "BRIDGE_ACCESS_LOG", False, _on_or_off, "on: iCure learns who was shown which patient"
    )
    smtp_server: SmtpServer | None = _setting(
        "BRIDGE_SMTP_URL", None, _smtp_server, "mail server for invitations", is_secret=True
    )
    smtp_sender: str = _setting("BRIDGE_SMTP_SENDER", "", _sender, "who sends invitations")
    invitation_url: str = _setting("BRIDGE_INVITATION_URL", "", web_url, "where invited patients log in")

    @property
    def embedded(self) -> bool:
        """Whether the embedded store is the upstream."""
        return not self.icure_url

    @property
    def state_place(self) -> str:
        """Where the state lies, without the password."""
        if not self.state_url:
            return str(self.data_dir)
        return f"Redis at {urlsplit(self.state_url).netloc.rpartition('@')[2]}"

    def trusts(self, address: str | None) -> bool:
        """Whether `X-Forwarded-*` from this peer address counts."""
        try:
            peer = ip_address(address or "")
        except ValueError:
            return False
        peer = getattr(peer, "ipv4_mapped", None) or peer
        return any(peer in ip_network(network, strict=False) for network in self.trusted_proxies)


def settings() -> list[tuple[str, Any, str]]:
    """Returns name, default and meaning of every setting."""
    return [(f.metadata["name"], f.default, f.metadata["meaning"]) for f in fields(Config)]


def read_config(environment: Mapping[str, str] = os.environ) -> tuple[Config, list[str]]:
    """Returns the settings and a warning for each unknown `BRIDGE_*` name.

    Raises `ConfigError`, which names the setting whose value cannot be used. Empty means default.
    """
    values: dict[str, Any] = {}
    for f in fields(Config):
        text = environment.get(f.metadata["name"], "").strip()
        if text:
            try:
                values[f.name] = f.metadata["read"](text)
            except ValueError as e:
                raise ConfigError(f"{f.metadata['name']} {e}") from e
    config = Config(**values)
    if config.state_url and not config.secret_file:
        raise ConfigError("BRIDGE_SECRET_FILE must be set with BRIDGE_STATE_URL: all hosts need one secret")
    if config.smtp_server and not config.smtp_sender:
        raise ConfigError("BRIDGE_SMTP_SENDER must be set with BRIDGE_SMTP_URL: messages come from somebody")
    if config.key_ttl_seconds > config.key_max_age_seconds:
        raise ConfigError("BRIDGE_KEY_TTL_SECONDS must not be larger than BRIDGE_KEY_MAX_AGE_SECONDS")
    known = {f.metadata["name"] for f in fields(Config)}
    unknown = sorted(name for name in environment if name.startswith("BRIDGE_") and name not in known)
    return config, [f"{name} is not a setting of this version; it is ignored" for name in unknown]
