from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from click.testing import CliRunner, Result

from bridge import demo, server
from bridge.app import create_app
from bridge.cli import main
from bridge.config import Config
from tests.helpers import DEMO_PATIENT, Account, Caller, Remote, free_port, redis_serving, serving
from tests.smtp import smtp_serving

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs commands in an empty directory, without settings."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    for name in [n for n in os.environ if n.startswith(("BRIDGE_", "ICURE_"))]:
        monkeypatch.delenv(name)
    yield


def run(*arguments: str | Path, asked: str = "", **environment: str) -> Result:
    """Returns what a command said in this process; somebody else may serve on the port that is the default."""
    if "serve" in arguments and "--port" not in arguments:
        arguments += ("--port", str(free_port()))
    return CliRunner().invoke(main, [str(a) for a in arguments], input=asked, env=environment)


def refused(result: Result, *words: str) -> None:
    """Asserts an end in words."""
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)
    for word in words:
        assert word in result.output


def start(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `serve` as a process of its own until it ends by itself."""
    root = Path(demo.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-m", "bridge.cli", "serve", "--port", str(free_port()), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "PYTHONPATH": str(root), **environment},
    )


def test_a_taken_port_is_said_in_words(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = start("--port", port, "--data-dir", data_dir)
    assert done.returncode == 1
    assert f"127.0.0.1:{port} is taken" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_second_bridge_on_the_same_port_says_so(data_dir: Path) -> None:
    with serving(data_dir, workers=1) as running:
        port = running.url.rpartition(":")[2]
        refused(run("serve", "--port", port, "--data-dir", data_dir), "is taken")
        assert requests.get(f"{running.url}/health/live").ok


def test_an_address_of_another_machine_is_said_in_words(data_dir: Path) -> None:
    refused(run("serve", "--host", "192.0.2.1", "--data-dir", data_dir), "192.0.2.1", "--host")
    refused(run("serve", "--host", "no.such.host.invalid", "--data-dir", data_dir), "no.such.host", "--host")


UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@pytest.mark.skipif(
    os.geteuid() == 0 or (UNPRIVILEGED.exists() and int(UNPRIVILEGED.read_text()) <= 80),
    reason="whoever runs this may listen on any port",
)
def test_a_port_that_needs_rights_is_said_in_words(data_dir: Path) -> None:
    refused(run("serve", "--port", "80", "--data-dir", data_dir), "rights")


WRONG = {
    "BRIDGE_VALIDATION": "lax",
    "BRIDGE_MAX_BODY_BYTES": "64MB",
    "ICURE_URL": "icure.cloud",
    "BRIDGE_SECRET_FILE": "/nowhere",
    "BRIDGE_STATE_URL": "localhost:6379",
}


@pytest.mark.parametrize(("name", "value"), WRONG.items(), ids=WRONG)
@pytest.mark.parametrize(
    "command", [["serve"], ["check"], ["demo"], ["account", "add", "x", "--password", PASSWORD]]
)
def test_a_wrong_setting_stops_every_command_by_name(command: list[str], name: str, value: str) -> None:
    refused(run(*command, **{name: value}), name)
    assert not Path("data").exists()


def test_a_wrong_setting_stops_the_start(data_dir: Path) -> None:
    done = start("--data-dir", data_dir, BRIDGE_KEY_TTL_SECONDS="forever")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: BRIDGE_KEY_TTL_SECONDS must be a whole number")


def test_a_wrong_list_of_encrypted_fields_stops_the_start(data_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "fields.json"
    for content in ("{", "[]", '{"patients": ["note"]}', '{"patient": ["id"]}', '{"patient": ["a..b"]}'):
        file.write_text(content)
        for command in ("serve", "check"):
            result = run(command, "--data-dir", data_dir, BRIDGE_ENCRYPTED_FIELDS_FILE=str(file))
            refused(result, "BRIDGE_ENCRYPTED_FIELDS_FILE")


def test_an_unknown_setting_is_warned_about(data_dir: Path) -> None:
    result = run("check", "--data-dir", data_dir, BRIDGE_WORKER="3")
    assert result.exit_code == 0
    assert "warning: BRIDGE_WORKER is not a setting" in result.stderr


def test_a_data_dir_that_cannot_be_used_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for command in ("serve", "check"):
        refused(run(command, "--data-dir", tmp_path / "file" / "below"), "data directory", "file")


def test_serve_says_where_it_serves_and_what_comes_next(tmp_path: Path) -> None:
    data_dir = tmp_path / "new"
    data_dir.mkdir()
    with serving(data_dir) as running:
        said = running.log.read_text()
        assert f"FHIR base: {running.fhir}" in said
        assert "make demo" in said
        file = data_dir / "demo-accounts.json"
        assert file.stat().st_mode & 0o777 == 0o600
        before = file.read_bytes()
        account = demo.accounts(data_dir)[0]
        remote = Remote(running, account)
        remote.load_key()
        remote.get(f"Patient/{DEMO_PATIENT}")
    with serving(data_dir) as running:
        assert file.read_bytes() == before
        Remote(running, account).get(f"Patient/{DEMO_PATIENT}")


def test_two_or_more_processes_are_the_default_where_there_are_two_cores(data_dir: Path) -> None:
    assert server.default_workers() == max(1, len(os.sched_getaffinity(0)))
    if server.default_workers() >= 2:
        with serving(data_dir, workers=server.default_workers()) as running:
            assert len(running.workers()) == server.default_workers()


def test_the_help_names_the_measured_default_of_threads() -> None:
    assert f"Default: {server.DEFAULT_THREADS}" in run("serve", "--help").output


def test_without_demo_there_are_no_accounts(tmp_path: Path) -> None:
    data_dir = tmp_path / "bare"
    data_dir.mkdir()
    with serving(data_dir, "--no-demo", workers=1) as running:
        assert requests.get(f"{running.url}/health/ready").ok
        assert "make demo" not in running.log.read_text()
    assert not (data_dir / "demo-accounts.json").exists()
    refused(run("demo", "--data-dir", data_dir), "no demo accounts", str(data_dir))


def test_with_an_icure_server_no_demo_is_made(tmp_path: Path) -> None:
    data_dir = tmp_path / "bare"
    data_dir.mkdir()
    with serving(data_dir, workers=1, ICURE_URL=f"http://127.0.0.1:{free_port()}") as running:
        assert requests.get(f"{running.url}/rest/v2/icure/v").status_code == 404, "no embedded store"
        assert requests.get(f"{running.url}/health/ready").status_code == 503
    assert not (data_dir / "demo-accounts.json").exists()
    assert not (data_dir / "icure.sqlite").exists()


def test_demo_says_so_when_there_are_none(tmp_path: Path) -> None:
    for options in ([], ["--json"]):
        refused(run("demo", *options, "--data-dir", tmp_path / "none"), "no demo accounts", "make run")
    assert not (tmp_path / "none").exists()


def test_demo_as_json_has_the_shape_of_the_contract(data_dir: Path) -> None:
    result = run("demo", "--json", "--data-dir", data_dir)
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told == json.loads((data_dir / "demo-accounts.json").read_text())
    assert told.keys() == {"accounts"}
    members = {"name", "login", "password", "dataOwnerId", "privateKey"}
    assert [a.keys() for a in told["accounts"]] == [members, members]
    assert [(a["name"], a["login"]) for a in told["accounts"]] == [("esmith", "esmith"), ("jdoe", "jdoe")]
    assert told["accounts"][0]["dataOwnerId"] == "2d205ac4-c8c9-428b-b68e-d9381da235d2"
    assert all(bytes.fromhex(a["privateKey"]) for a in told["accounts"])


def test_two_data_dirs_have_no_secret_in_common(data_dir: Path, tmp_path: Path) -> None:
    demo.ensure(Config(data_dir=tmp_path / "other"))
    one, other = demo.accounts(data_dir), demo.accounts(tmp_path / "other")
    for member in ("password", "privateKey"):
        assert {a[member] for a in one}.isdisjoint(a[member] for a in other)


def test_the_first_lines_of_demo_can_be_copied(data_dir: Path, accounts: dict[str, Account]) -> None:
    with serving(data_dir, workers=1) as running:
        said = run("demo", "--data-dir", data_dir).output
        assert all(a["login"] in said and a["password"] in said for a in accounts.values())
        curls = re.findall("^curl .*", said, re.MULTILINE)
        assert len(curls) == 2
        for curl in curls:
            there = curl.replace("http://127.0.0.1:8080", running.url).replace("curl ", "curl -sS --fail ")
            done = subprocess.run(["bash", "-c", there], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["id"] == DEMO_PATIENT


def test_an_added_account_can_log_in_load_its_key_and_work(data_dir: Path) -> None:
    result = run("account", "add", "rita", "--data-dir", data_dir, asked=f"{PASSWORD}\n{PASSWORD}\n")
    assert result.exit_code == 0, result.output
    assert PASSWORD not in result.output
    file = Path("rita.key.json")
    assert file.stat().st_mode & 0o777 == 0o600
    written = json.loads(file.read_text())
    assert written.keys() == {"login", "dataOwnerId", "privateKey"}
    assert written["login"] == "rita"
    assert written["dataOwnerId"] in result.output
    assert written["privateKey"] not in result.output
    rita = Caller(create_app(Config(data_dir=data_dir)), {**written, "password": PASSWORD})
    assert rita.load_key().status_code == 200
    made = rita.created({"resourceType": "Patient", "active": True})
    assert rita.get(f"Patient/{made['id']}").json["active"] is True
    assert rita.get(f"Patient/{DEMO_PATIENT}").status_code in (403, 404), "nothing of others"


def test_an_account_is_added_to_a_new_data_dir_and_beside_a_running_server(tmp_path: Path) -> None:
    data_dir = tmp_path / "fresh"
    assert run("account", "add", "rita", "--password", PASSWORD, "--data-dir", data_dir).exit_code == 0
    with serving(data_dir, "--no-demo", workers=2) as running:
        added = run("account", "add", "omar", "--password", PASSWORD, "--data-dir", data_dir)
        assert added.exit_code == 0
        for name in ("rita", "omar"):
            account = json.loads(Path(f"{name}.key.json").read_text()) | {"password": PASSWORD}
            remote = Remote(running, account)
            remote.load_key()
            remote.created({"resourceType": "Patient"})


def test_a_taken_login_is_refused_and_leaves_no_key(data_dir: Path) -> None:
    refused(run("account", "add", "jdoe", "--password", PASSWORD, "--data-dir", data_dir), "login is taken")
    assert list(Path().iterdir()) == []


def test_a_key_file_is_never_overwritten(data_dir: Path) -> None:
    Path("rita.key.json").write_text("precious")
    result = run("account", "add", "rita", "--password", PASSWORD, "--data-dir", data_dir)
    refused(result, "rita.key.json exists")
    assert Path("rita.key.json").read_text() == "precious"
    result = run(
        *(
            "account",
            "add",
            "rita",
            "--password",
            PASSWORD,
            "--key-file",
            "other.json",
            "--data-dir",
            data_dir,
        )
    )
    assert result.exit_code == 0, "the refused call added nothing"


def test_no_account_is_added_when_its_key_cannot_be_written(data_dir: Path) -> None:
    Path("file").write_text("x")
    add = ("account", "add", "rita", "--password", PASSWORD, "--data-dir", data_dir)
    refused(run(*add, "--key-file", "file/rita.json"), "cannot be written")
    assert run(*add).exit_code == 0


@pytest.mark.parametrize("name", ["a:b", "a/b", "../a", " ", "a\nb"])
def test_a_name_that_is_no_login_is_refused(data_dir: Path, name: str) -> None:
    refused(run("account", "add", name, "--password", PASSWORD, "--data-dir", data_dir), "NAME")


def test_a_short_password_and_two_different_ones_are_refused(data_dir: Path) -> None:
    refused(run("account", "add", "rita", "--password", "1234567", "--data-dir", data_dir), "8 characters")
    asked = f"{PASSWORD}\nother password\n"
    assert run("account", "add", "rita", "--data-dir", data_dir, asked=asked).exit_code != 0
    assert list(Path().iterdir()) == []


def test_no_account_is_added_on_another_icure() -> None:
    result = run("account", "add", "rita", "--password", PASSWORD, ICURE_URL="https://icure.example.org")
    refused(result, "ICURE_URL")


def test_check_says_that_all_is_well(data_dir: Path) -> None:
    result = run("check", "--data-dir", data_dir)
    assert result.exit_code == 0
    assert "All is well" in result.output
    assert str(data_dir) in result.output


def test_check_says_which_component_is_broken(data_dir: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    refused(run("check", "--data-dir", data_dir, ICURE_URL=url), "iCure cannot be reached", url)
    (data_dir / "secret").chmod(0o644)
    refused(run("check", "--data-dir", data_dir), "secret", "chmod 600")
    (data_dir / "secret").chmod(0o600)
    # A connection that was not closed yet still writes into the files that it opened.
    for file in data_dir.glob("state.db*"):
        file.unlink()
    (data_dir / "state.db").write_bytes(b"no database" * 1000)
    refused(run("check", "--data-dir", data_dir), "state", str(data_dir))


def test_check_reaches_the_mail_server(data_dir: Path, tmp_path: Path) -> None:
    def mailing(port: int) -> Result:
        url = f"smtp://127.0.0.1:{port}?starttls=no"
        return run("check", "--data-dir", data_dir, BRIDGE_SMTP_URL=url, BRIDGE_SMTP_SENDER="a@b.org")

    with smtp_serving(tmp_path / "mail") as server:
        assert mailing(server.port).exit_code == 0
    refused(mailing(free_port()), "mail server")


@pytest.fixture
def secret(tmp_path: Path) -> str:
    """The path of a deployment secret."""
    file = tmp_path / "deployment"
    file.write_bytes(os.urandom(32))
    file.chmod(0o600)
    return str(file)


def checked(data_dir: Path, url: str, secret: str) -> Result:
    return run("check", "--data-dir", data_dir, BRIDGE_STATE_URL=url, BRIDGE_SECRET_FILE=secret)


def test_check_reaches_redis(data_dir: Path, redis_url: str, secret: str) -> None:
    result = checked(data_dir, redis_url, secret)
    assert result.exit_code == 0, result.output
    assert f"state in Redis at {urlsplit(redis_url).netloc}." in result.output
    assert result.stderr == ""
    assert not (data_dir / "state.db-wal").exists()


def test_check_says_why_redis_cannot_be_used(data_dir: Path, tmp_path: Path, secret: str) -> None:
    where = f"localhost:{free_port()}"
    refused(checked(data_dir, f"redis://:canary@{where}", secret), f"Redis at {where}", "no connection")
    refused(checked(data_dir, "redis://no.such.host.invalid", secret), "no.such.host", "no connection")
    with redis_serving(tmp_path, "--requirepass", "canary") as (_, url):
        refused(checked(data_dir, url, secret), "refuses the login")
        wrong = checked(data_dir, url.replace("//", "//:other-canary@"), secret)
        refused(wrong, "refuses the login")
        assert "canary" not in wrong.output
        assert checked(data_dir, url.replace("//", "//:canary@"), secret).exit_code == 0
        ca = checked(data_dir, url.replace("redis://", "rediss://") + "?ssl_ca_certs=/nowhere", secret)
        refused(ca, "no connection")


def test_check_warns_of_a_redis_that_may_lose_what_it_keeps(
    data_dir: Path, tmp_path: Path, secret: str
) -> None:
    forgetful = ("--appendonly", "no", "--maxmemory-policy", "allkeys-lru")
    with redis_serving(tmp_path, *forgetful) as (_, url):
        result = checked(data_dir, url, secret)
    assert result.exit_code == 0
    assert "warning: this Redis has no append-only file" in result.stderr
    assert "warning: this Redis removes values when it is full (allkeys-lru)" in result.stderr


def test_check_says_that_redis_is_full(data_dir: Path, tmp_path: Path, secret: str) -> None:
    with redis_serving(tmp_path, "--maxmemory", "1") as (_, url):
        refused(checked(data_dir, url, secret), "Redis is full")


@pytest.mark.parametrize("command", ["check", "serve"])
def test_redis_without_a_secret_stops_the_start(data_dir: Path, command: str) -> None:
    result = run(command, "--data-dir", data_dir, BRIDGE_STATE_URL="redis://localhost")
    refused(result, "BRIDGE_SECRET_FILE must be set")


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_store_that_is_damaged_is_said_in_words(data_dir: Path, command: str) -> None:
    for file in data_dir.glob("icure.sqlite*"):
        file.write_bytes(b"no database" * 1000)
    refused(run(command, "--data-dir", data_dir), "embedded store", str(data_dir))


def test_check_warns_of_passwords_in_clear(data_dir: Path) -> None:
    with serving(data_dir, workers=1) as icure:
        result = run("check", ICURE_URL=icure.url)
    assert result.exit_code == 0, result.output
    assert "warning: ICURE_URL is not https" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_service_in_peace(data_dir: Path, number: signal.Signals) -> None:
    with serving(data_dir, workers=2) as running:
        running.process.send_signal(number)
        assert running.process.wait(60) == 0
        assert "Traceback" not in running.log.read_text()
        with pytest.raises(ProcessLookupError):
            os.killpg(running.process.pid, 0)


@pytest.mark.parametrize("held", [b"{", b"[]", b"{}", b"\xff"])
@pytest.mark.parametrize("command", [["demo"], ["serve", "--port", str(free_port())]])
def test_broken_demo_accounts_are_said_in_words(tmp_path: Path, command: list[str], held: bytes) -> None:
    (tmp_path / "demo-accounts.json").write_bytes(held)
    result = CliRunner().invoke(main, [*command, "--data-dir", str(tmp_path)])
    assert (result.exit_code, "Not as it was written" in result.output) == (1, True), result.output
