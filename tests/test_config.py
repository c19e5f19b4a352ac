from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import requests

from bridge.app import create_app
from bridge.config import Config, ConfigError, SmtpServer, read_config, settings
from tests.helpers import DEMO_PATIENT, FHIR, Account, Caller, Remote, assert_outcome, serving

DEFAULTS = {
    "ICURE_URL": "",
    "BRIDGE_DATA_DIR": Path("data"),
    "BRIDGE_STATE_URL": "",
    "BRIDGE_SECRET_FILE": None,
    "BRIDGE_PUBLIC_URL": "",
    "BRIDGE_TRUSTED_PROXIES": (),
    "BRIDGE_CORS_ORIGINS": (),
    "BRIDGE_TIMEZONE": "UTC",
    "BRIDGE_ENCRYPTED_FIELDS_FILE": None,
    "BRIDGE_KEY_TTL_SECONDS": 3600,
    "BRIDGE_KEY_MAX_AGE_SECONDS": 43200,
    "BRIDGE_MAX_BODY_BYTES": 67108864,
    "BRIDGE_MAX_BUNDLE_ENTRIES": 20000,
    "BRIDGE_IDENTIFIER_SYSTEM": "https://dxm.icure.dev",
    "BRIDGE_REFERENCES": "lenient",
    "BRIDGE_VALIDATION": "lenient",
    "BRIDGE_HOOK_HOSTS": (),
    "BRIDGE_ACCESS_LOG": False,
    "BRIDGE_SMTP_URL": None,
    "BRIDGE_SMTP_SENDER": "",
    "BRIDGE_INVITATION_URL": "",
}


def test_the_defaults_are_those_of_the_contract() -> None:
    found = {name: default for name, default, _ in settings()}
    assert {**found, "BRIDGE_TIMEZONE": found["BRIDGE_TIMEZONE"].key} == DEFAULTS
    assert read_config({}) == (Config(), [])


def test_an_empty_value_means_the_default() -> None:
    assert read_config(dict.fromkeys(DEFAULTS, " ")) == (Config(), [])


GOOD: dict[str, tuple[str, str, Any]] = {
    "server": ("ICURE_URL", "https://api.icure.cloud/", "https://api.icure.cloud"),
    "server with a path": ("ICURE_URL", "http://localhost:16043/icure", "http://localhost:16043/icure"),
    "public": ("BRIDGE_PUBLIC_URL", "https://fhir.example.org", "https://fhir.example.org"),
    "proxies": ("BRIDGE_TRUSTED_PROXIES", "10.0.0.0/8, ::1", ("10.0.0.0/8", "::1")),
    "origins": ("BRIDGE_CORS_ORIGINS", "https://a.org,http://b:3000", ("https://a.org", "http://b:3000")),
    "hook hosts": (
        "BRIDGE_HOOK_HOSTS",
        "lab.intern, 10.0.0.7,fd00::7",
        ("lab.intern", "10.0.0.7", "fd00::7"),
    ),
    "any origin": ("BRIDGE_CORS_ORIGINS", "*", ("*",)),
    "key ttl": ("BRIDGE_KEY_TTL_SECONDS", "60", 60),
    "urn": ("BRIDGE_IDENTIFIER_SYSTEM", "urn:oid:1.2.3", "urn:oid:1.2.3"),
    "strict": ("BRIDGE_VALIDATION", "strict", "strict"),
    "access log": ("BRIDGE_ACCESS_LOG", "on", True),
    "no access log": ("BRIDGE_ACCESS_LOG", "off", False),
    "sender": ("BRIDGE_SMTP_SENDER", "Clinic <no-reply@x.org>", "Clinic <no-reply@x.org>"),
    "bare sender": ("BRIDGE_SMTP_SENDER", "no-reply@x.org", "no-reply@x.org"),
    "application": ("BRIDGE_INVITATION_URL", "https://app.x.org/login", "https://app.x.org/login"),
}


@pytest.mark.parametrize(("name", "text", "value"), GOOD.values(), ids=GOOD)
def test_a_value_is_read(name: str, text: str, value: object) -> None:
    config, warnings = read_config({name: text})
    (field,) = (f for f in Config.__dataclass_fields__.values() if f.metadata["name"] == name)
    assert getattr(config, field.name) == value
    assert warnings == []


def test_a_time_zone_is_read() -> None:
    assert read_config({"BRIDGE_TIMEZONE": "Europe/Brussels"})[0].timezone.key == "Europe/Brussels"


SMTP = {
    "encrypted later": ("smtp://u:p%20w@mail.x.org", SmtpServer("mail.x.org", 587, False, True, "u", "p w")),
    "encrypted": ("smtps://u:p@mail.x.org:2465", SmtpServer("mail.x.org", 2465, True, False, "u", "p")),
    "in clear": ("smtp://localhost:25?starttls=no", SmtpServer("localhost", 25, False, False)),
    "own authority": (
        f"smtps://[::1]?ca_certs={__file__}",
        SmtpServer("::1", 465, True, False, ca_certs=__file__),
    ),
}


@pytest.mark.parametrize(("text", "server"), SMTP.values(), ids=SMTP)
def test_a_mail_server_is_read(text: str, server: SmtpServer) -> None:
    config, _ = read_config({"BRIDGE_SMTP_URL": text, "BRIDGE_SMTP_SENDER": "a@b.org"})
    assert config.smtp_server == server
    assert "p w" not in repr(config)


def test_a_mail_server_needs_a_sender() -> None:
    with pytest.raises(ConfigError, match="BRIDGE_SMTP_SENDER"):
        read_config({"BRIDGE_SMTP_URL": "smtps://mail.x.org"})


WRONG = [
    *(
        ("BRIDGE_SMTP_URL", text)
        for text in (
            *(
                "mail.x.org",
                "http://x",
                "smtp://",
                "smtp://x:0",
                "smtp://x:99999",
                "smtp://u:p%C3%A4@x",
                "smtp://x y",
                "smtp://x/y",
            ),
            *("smtp://x#a", "smtp://u@x", "smtp://x?starttls=maybe", "smtp://x?timeout=1", "smtp://é"),
            *("smtp://u:p@x?starttls=no", "smtps://x?ca_certs=/nowhere/at/all", "smtp://u:p/w@x"),
            *("smtp://a..b", f"smtp://{'a' * 64}"),
        )
    ),
    *(("BRIDGE_ACCESS_LOG", text) for text in ("yes", "1", "true", "ON")),
    *(("BRIDGE_SMTP_SENDER", text) for text in ("clinic", "a@b@c", "Clinic <>", "a@b.org\nBcc: x@y.org")),
    *(("BRIDGE_INVITATION_URL", text) for text in ("app.x.org", "ftp://x")),
    *(
        ("ICURE_URL", text)
        for text in (
            "icure.cloud",
            "ftp://x",
            "https://",
            "https://u:p@x",
            "http://[",
            "http://x:9x",
            "http://a..b",
        )
    ),
    *(
        ("ICURE_URL", text)
        for text in ("https://x/rest/v2", "https://x/rest/v2/", "https://x?a=1", "https://x y")
    ),
    *(("BRIDGE_PUBLIC_URL", text) for text in ("fhir.example.org", "//x", "https://x#a", "https://x\n/y")),
    *(
        ("BRIDGE_STATE_URL", text)
        for text in (
            *(
                "localhost:6379",
                "http://x",
                "redis://",
                "redis:x",
                "redis://x:0",
                "redis://x:99999",
                "redis://x:y",
            ),
            *(
                "redis://x y",
                "redis://x/a",
                "redis://x#a",
                "redis://a..b",
                "redis://x?db=1",
                "redis://[x]",
                "redis://é",
            ),
            *("redis://x?ssl_ca_certs=", "redis://u:p/w@x", "rediss://x?ssl_cert_reqs=none"),
        )
    ),
    ("BRIDGE_DATA_DIR", __file__),
    *((name, "/nowhere/at/all") for name in ("BRIDGE_SECRET_FILE", "BRIDGE_ENCRYPTED_FIELDS_FILE")),
    *(("BRIDGE_TRUSTED_PROXIES", text) for text in ("proxy.example.org", "10.0.0.0/99", "*")),
    *(("BRIDGE_HOOK_HOSTS", text) for text in ("https://lab.intern", "lab.intern:8443", "Lab.Intern", "*")),
    *(("BRIDGE_CORS_ORIGINS", text) for text in ("example.org", "https://x/", "https://*.x", ".*", "null")),
    *(("BRIDGE_TIMEZONE", text) for text in ("Brussels", "../etc/passwd", "/UTC", "+01:00", "Europe/")),
    *(
        (f"BRIDGE_{name}", text)
        for name in ("KEY_TTL_SECONDS", "KEY_MAX_AGE_SECONDS", "MAX_BODY_BYTES", "MAX_BUNDLE_ENTRIES")
        for text in ("0", "-1", "1.5", "1e3", "many", "²", "١", "9" * 5000, "1_000")
    ),
    *(("BRIDGE_IDENTIFIER_SYSTEM", text) for text in ("mine", "https://x y", "urn:")),
    *((f"BRIDGE_{name}", text) for name in ("REFERENCES", "VALIDATION") for text in ("Strict", "none", "1")),
]


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_a_wrong_value_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} "):
        read_config({name: text})


def test_every_setting_that_can_be_wrong_is_tried() -> None:
    assert {name for name, _ in WRONG} == DEFAULTS.keys()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("redis://redis.example.org", "Redis at redis.example.org"),
        ("redis://:canary@localhost:6379/3", "Redis at localhost:6379"),
        ("rediss://user:can%2Fary%40@[::1]:6380?ssl_ca_certs=/ca.pem", "Redis at [::1]:6380"),
    ],
)
def test_redis_needs_a_secret_and_its_password_is_not_shown(text: str, place: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^BRIDGE_SECRET_FILE .*BRIDGE_STATE_URL"):
        read_config({"BRIDGE_STATE_URL": text})
    file = tmp_path / "secret"
    file.write_bytes(b"x" * 16)
    config, _ = read_config({"BRIDGE_STATE_URL": text, "BRIDGE_SECRET_FILE": str(file)})
    assert (config.state_url, config.state_place) == (text, place)
    assert "ary" not in repr(config)


def test_a_wrong_address_of_redis_is_not_shown() -> None:
    with pytest.raises(ConfigError) as refusal:
        read_config({"BRIDGE_STATE_URL": "redis://user:canary@x:port"})
    assert "canary" not in f"{refusal.value}{refusal.value.__cause__}{refusal.value.__cause__.__cause__}"


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"x" * 15)
    with pytest.raises(ConfigError, match="BRIDGE_SECRET_FILE"):
        read_config({"BRIDGE_SECRET_FILE": str(file)})
    file.write_bytes(b"x" * 16)
    assert read_config({"BRIDGE_SECRET_FILE": str(file)})[0].secret_file == file


def test_a_key_that_stays_longer_than_in_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"BRIDGE_KEY_TTL_SECONDS.*BRIDGE_KEY_MAX_AGE_SECONDS"):
        read_config({"BRIDGE_KEY_TTL_SECONDS": "100", "BRIDGE_KEY_MAX_AGE_SECONDS": "99"})


def test_an_unknown_setting_is_warned_about_by_name_only() -> None:
    _, warnings = read_config({"BRIDGE_WORKERS": "zq1zq", "BRIDGED": "x", "ICURE_LOGIN": "x"})
    assert len(warnings) == 1
    assert "BRIDGE_WORKERS" in warnings[0]
    assert "zq1zq" not in warnings[0]


TRUSTED = {
    "listed": ("10.0.0.0/8", "10.1.2.3", True),
    "single": ("192.0.2.1", "192.0.2.1", True),
    "IPv6": ("2001:db8::/32", "2001:db8::1", True),
    "other": ("10.0.0.0/8", "11.1.2.3", False),
    "none listed": ("", "127.0.0.1", False),
    "no address": ("10.0.0.0/8", None, False),
    "no IP address": ("10.0.0.0/8", "unix", False),
}


@pytest.mark.parametrize(("listed", "peer", "trusted"), TRUSTED.values(), ids=TRUSTED)
def test_a_proxy_is_trusted_when_listed(listed: str, peer: str | None, trusted: bool) -> None:
    assert read_config({"BRIDGE_TRUSTED_PROXIES": listed})[0].trusts(peer) is trusted


def caller(data_dir: Path, accounts: dict[str, Account], **configured: Any) -> Caller:
    caller = Caller(create_app(Config(data_dir=data_dir, **configured)), accounts["esmith"])
    assert caller.load_key().status_code == 200
    return caller


def told_bases(caller: Caller, **headers: str) -> set[str]:
    """Returns the bases of Location, of fullUrl and of the links that these headers lead to."""
    made = caller.post("Patient", {"resourceType": "Patient"}, **headers)
    found = caller.get(f"Patient?_id={DEMO_PATIENT}", **headers).json
    urls = [made.headers["Location"], found["entry"][0]["fullUrl"], *(x["url"] for x in found["link"])]
    assert all("/Patient" in url for url in urls)
    return {url.partition("/Patient")[0] for url in urls}


PROXIED = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "fhir.example.org"}


def test_the_public_url_is_the_base_of_every_link(data_dir: Path, accounts: dict[str, Account]) -> None:
    public = caller(data_dir, accounts, public_url="https://public.example.org/hospital")
    for headers in ({}, PROXIED, {"Host": "elsewhere"}):
        assert told_bases(public, **headers) == {f"https://public.example.org/hospital{FHIR}"}


def test_links_follow_what_a_trusted_proxy_says(data_dir: Path, accounts: dict[str, Account]) -> None:
    behind = caller(data_dir, accounts, trusted_proxies=("127.0.0.0/8",))
    assert told_bases(behind, **PROXIED) == {f"https://fhir.example.org{FHIR}"}
    assert told_bases(behind, **{"X-Forwarded-Proto": "javascript"}) == {f"http://localhost{FHIR}"}


def test_links_do_not_follow_what_anyone_else_says(data_dir: Path, accounts: dict[str, Account]) -> None:
    direct = caller(data_dir, accounts, trusted_proxies=("10.0.0.0/8",))
    assert told_bases(direct, **PROXIED) == {f"http://localhost{FHIR}"}


def test_a_host_that_is_none_is_not_repeated(data_dir: Path, accounts: dict[str, Account]) -> None:
    direct = caller(data_dir, accounts)
    bases = told_bases(direct, Host='x"><script>')
    assert bases == {f"http://localhost{FHIR}"}


def test_a_running_server_lets_nobody_else_say_that_it_is_https(
    data_dir: Path, accounts: dict[str, Account]
) -> None:
    secure = {"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "on", "X-Forwarded-Protocol": "ssl"}
    with serving(data_dir, workers=1) as server:
        remote = Remote(server, accounts["esmith"])
        remote.load_key()
        remote.headers |= secure
        assert remote.post("Patient", {"resourceType": "Patient"}).headers["Location"].startswith(server.fhir)
    with serving(data_dir, workers=1, BRIDGE_TRUSTED_PROXIES="127.0.0.1") as server:
        remote = Remote(server, accounts["esmith"])
        remote.headers |= secure
        location = remote.post("Patient", {"resourceType": "Patient"}).headers["Location"]
        assert location.startswith(server.fhir.replace("http:", "https:"))


ORIGIN = "https://app.example.org"


def test_a_listed_origin_may_ask_and_see_the_headers(data_dir: Path, accounts: dict[str, Account]) -> None:
    browser = caller(data_dir, accounts, cors_origins=(ORIGIN,))
    for path in ("Patient", "/rest/icdx/v1/keychain/x"):
        asked = browser.send(
            "OPTIONS",
            path,
            Authorization="",
            Origin=ORIGIN,
            **{
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization, content-type, prefer, if-match",
            },
        )
        assert asked.status_code in (200, 204)
        assert asked.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "POST" in asked.headers["Access-Control-Allow-Methods"]
        assert "authorization" in asked.headers["Access-Control-Allow-Headers"].lower()
    for answer in (
        browser.get(f"Patient/{DEMO_PATIENT}", Origin=ORIGIN),
        browser.get("Patient/nothing", Origin=ORIGIN),
        browser.get(f"Patient/{DEMO_PATIENT}", Origin=ORIGIN, Authorization=""),
    ):
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        exposed = {h.strip() for h in answer.headers["Access-Control-Expose-Headers"].split(",")}
        assert exposed >= {"ETag", "Location", "Last-Modified"}


@pytest.mark.parametrize("listed", [(), (ORIGIN,)])
def test_another_origin_may_not(
    data_dir: Path, accounts: dict[str, Account], listed: tuple[str, ...]
) -> None:
    browser = caller(data_dir, accounts, cors_origins=listed)
    for other in ("https://evil.example.org", f"{ORIGIN}.evil.org", "https://appxexample.org", "null"):
        answer = browser.get(f"Patient/{DEMO_PATIENT}", Origin=other)
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_larger_body_is_refused(data_dir: Path, accounts: dict[str, Account]) -> None:
    small = caller(data_dir, accounts, max_body_bytes=4000)
    patient = {"resourceType": "Patient", "language": "en"}
    assert small.post("Patient", patient).status_code == 201
    large = json.dumps(patient).encode() + b" " * 4000
    for method, path in (("POST", "Patient"), ("POST", ""), ("PUT", f"Patient/{DEMO_PATIENT}")):
        assert_outcome(small.send(method, path, large), 413, "too-long")
    keychain = f"/rest/icdx/v1/keychain/{small.account['dataOwnerId']}"
    assert_outcome(small.post(keychain, b'{"key": "' + b"0" * 4000 + b'"}'), 413, "too-long")


def test_a_larger_body_in_chunks_is_refused(data_dir: Path, accounts: dict[str, Account]) -> None:
    with serving(data_dir, workers=1, BRIDGE_MAX_BODY_BYTES="4000") as server:
        remote = Remote(server, accounts["esmith"])
        remote.load_key()
        for length, status in ((40, 201), (4000 - 26, 201), (4001 - 26, 413), (300_000, 413)):
            body = iter((b'{"resourceType":', b'"Patient"', b"}", b" " * length))
            answer = requests.post(f"{server.fhir}/Patient", data=body, headers=remote.headers)
            assert answer.request.headers["Transfer-Encoding"] == "chunked"
            if status == 201:
                assert answer.status_code == 201, answer.text
            else:
                assert_outcome(answer, 413, "too-long")
        remote.get(f"Patient/{DEMO_PATIENT}")


def test_a_body_that_claims_to_be_larger_is_refused_before_it_is_sent(
    data_dir: Path, accounts: dict[str, Account]
) -> None:
    with serving(data_dir, workers=1) as server:
        remote = Remote(server, accounts["esmith"])
        remote.load_key()
        head = "".join(f"{name}: {value}\r\n" for name, value in remote.headers.items())
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10) as peer:
            peer.sendall(
                f"POST {FHIR}/Patient HTTP/1.1\r\nHost: x\r\n{head}Content-Length: 99999999999\r\n\r\n".encode()
            )
            assert peer.recv(100).startswith(b"HTTP/1.1 413")


def test_more_entries_than_allowed_are_refused(data_dir: Path, accounts: dict[str, Account]) -> None:
    few = caller(data_dir, accounts, max_bundle_entries=3)
    entry = {"resource": {"resourceType": "Patient"}, "request": {"method": "POST", "url": "Patient"}}
    for count, status in ((3, 200), (4, 413)):
        answer = few.post("", {"resourceType": "Bundle", "type": "transaction", "entry": [entry] * count})
        assert answer.status_code == status, answer.text
    assert_outcome(answer, 413)


def test_the_time_zone_secret_and_fields_of_a_config_are_used(
    data_dir: Path, accounts: dict[str, Account], tmp_path: Path
) -> None:
    secret = tmp_path / "deployment"
    secret.write_bytes(b"s" * 32)
    caller(data_dir, accounts, secret_file=secret)
    other = Caller(create_app(Config(data_dir=data_dir)), accounts["esmith"])
    assert_outcome(other.get(f"Patient/{DEMO_PATIENT}"), 403, "security")
