"""The command `fhir-bridge`."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO
from urllib.parse import urlsplit

import click

from bridge.config import Config, ConfigError, read_config, web_url
from bridge.crypto.manifest import ManifestError
from bridge.errors import BridgeError

if TYPE_CHECKING:
    from bridge.importing import Key, Login
    from bridge.journal import Entry, Journal
    from bridge.scope import Bridge

MIN_PASSWORD = 8
data_dir_option = click.option(
    "--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Default: BRIDGE_DATA_DIR or ./data."
)


@click.group()
@click.version_option(package_name="icure-fhir-bridge")
def main() -> None:
    """FHIR R4 on iCure, end-to-end encrypted."""


def _config(data_dir: Path | None = None) -> Config:
    try:
        config, warnings = read_config()
    except ConfigError as e:
        raise click.ClickException(str(e)) from e
    for text in warnings:
        click.echo(f"warning: {text}", err=True)
    return replace(config, data_dir=data_dir) if data_dir else config


@contextmanager
def _said_in_words(config: Config) -> Iterator[None]:
    """Ends the command with a message when what the settings name cannot be used."""
    try:
        yield
    except ManifestError as e:
        raise click.ClickException(f"BRIDGE_ENCRYPTED_FIELDS_FILE: {e}") from e
    except sqlite3.Error as e:
        raise click.ClickException(f"The embedded store in {config.data_dir} cannot be used: {e}.") from e
    except OSError as e:
        what = f"{e.strerror} ({e.filename})" if e.filename else str(e)
        raise click.ClickException(f"The data directory {config.data_dir} cannot be used: {what}.") from e
    except BridgeError as e:
        raise click.ClickException(f"The state in {config.state_place} cannot be used: {e}") from e


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535))
@click.option("--workers", type=click.IntRange(1), help="Processes. Default: one per core.")
@click.option("--threads", type=click.IntRange(1), help="Threads per process. Default: 8.")
@data_dir_option
@click.option("--no-demo", is_flag=True, help="Make no demo accounts in the embedded store.")
def serve(
    host: str, port: int, workers: int | None, threads: int | None, data_dir: Path | None, no_demo: bool
) -> None:
    """Serve FHIR until stopped."""
    from bridge import demo, server
    from bridge.app import create_app

    config = _config(data_dir)
    if problem := server.listening_problem(host, port):
        raise click.ClickException(problem)
    with _said_in_words(config):
        create_app(config)
        if config.embedded and not no_demo:
            demo.ensure(config)

    def ready() -> None:
        click.echo(f"FHIR base: http://{host}:{port}/rest/fhir/r4")
        if config.embedded and demo.accounts(config.data_dir):
            click.echo("Next: make demo   (in another terminal: the demo accounts and a first request)")
        sys.stdout.flush()

    server.Server(
        config,
        host=host,
        port=port,
        workers=workers or server.default_workers(),
        threads=threads or server.DEFAULT_THREADS,
        ready=ready,
    ).run()


@main.command()
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print the accounts as JSON.")
def demo(data_dir: Path | None, as_json: bool) -> None:
    """Print the demo accounts and a first request to copy."""
    from bridge import demo as environment

    config = _config(data_dir)
    with _said_in_words(config):
        accounts = environment.accounts(config.data_dir)
    if not accounts:
        raise click.ClickException(
            f"There are no demo accounts in {config.data_dir}. Start the bridge first: make run"
        )
    if as_json:
        click.echo(json.dumps({"accounts": accounts}, indent=2))
        return
    for account in accounts:
        click.echo(f"{account['name']}: login {account['login']}, password {account['password']}")
        click.echo(f"  data owner {account['dataOwnerId']}")
    first = accounts[0]
    login = f"{first['login']}:{first['password']}"
    click.echo(
        f"\nThe private keys are in {config.data_dir / environment.FILE}. Load the one of {first['name']}:\n"
    )
    click.echo(
        f"curl -u '{login}' -H 'Content-Type: application/json' -d '{{\"key\": \"{first['privateKey']}\"}}' "
        f"http://127.0.0.1:8080/rest/icdx/v1/keychain/{first['dataOwnerId']}"
    )
    click.echo("\nThen read the demo patient:\n")
    click.echo(f"curl -u '{login}' http://127.0.0.1:8080/rest/fhir/r4/Patient/{environment.PATIENT}")


@main.group()
def account() -> None:
    """Accounts of the embedded store."""


@account.command("add")
@click.argument("name")
@click.password_option(help="At least 8 characters; asked for when not given.")
@click.option("--admin", is_flag=True, help="May manage users and healthcare parties.")
@click.option(
    "--key-file", type=click.Path(path_type=Path), help="Where the key pair goes. Default: NAME.key.json."
)
@data_dir_option
def add(name: str, password: str, admin: bool, key_file: Path | None, data_dir: Path | None) -> None:
    """Add a user with login NAME, a data owner and a fresh key pair."""
    from bridge import demo as environment

    config = _config(data_dir)
    if not config.embedded:
        raise click.ClickException("ICURE_URL is set: accounts are made on that iCure server.")
    if len(password) < MIN_PASSWORD:
        raise click.ClickException("The password must have at least 8 characters.")
    if not name.strip() or any(c in ":/\\" or not c.isprintable() for c in name):
        raise click.ClickException("NAME must have no colon, no slash and no control character.")
    file = key_file or Path(f"{name}.key.json")
    made = environment.new_account(name, password, str(uuid.uuid4()))
    with _said_in_words(config):
        config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            environment.write_secret_file(file, {k: made[k] for k in ("login", "dataOwnerId", "privateKey")})
        except OSError as e:
            why = "exists; it is not overwritten" if file.exists() else f"cannot be written: {e.strerror}"
            raise click.ClickException(f"{file} {why}.") from e
        try:
            environment.store_account(config.data_dir, made, is_admin=admin)
        except BaseException as e:
            file.unlink()
            if isinstance(e, ValueError):
                raise click.ClickException(str(e)) from e
            raise
    click.echo(f"{name} can log in now: data owner {made['dataOwnerId']}.")
    click.echo(f"The key pair is in {file}. Keep it safe: without it, nobody opens what {name} wrote.")


@main.command()
@data_dir_option
def check(data_dir: Path | None) -> None:
    """Check the configuration and reach every configured component."""
    from bridge.app import create_app

    config = _config(data_dir)
    problems: list[str] = []
    with _said_in_words(config):
        bridge = create_app(config).extensions["bridge"]
        bridge.state.put("check", "probe", b"", time.time() + 1)
        doubts = bridge.state.doubts()
    where = config.icure_url or f"the embedded store in {config.data_dir}"
    if not bridge.upstream.reachable():
        problems.append(f"iCure cannot be reached at {where}.")
    if bridge.mail:
        try:
            bridge.mail.check()
        except BridgeError as e:
            problems.append(str(e))
    if config.icure_url.startswith("http://"):
        click.echo("warning: ICURE_URL is not https: passwords travel in clear", err=True)
    for doubt in doubts:
        click.echo(f"warning: {doubt}", err=True)
    secret = config.secret_file or config.data_dir / "secret"
    if secret.stat().st_mode & 0o077:
        problems.append(f"{secret} can be read by others; chmod 600 it.")
    if problems:
        raise click.ClickException("\n".join(problems))
    click.echo(f"All is well: iCure is {where}, state in {config.state_place}.")


@main.command("import", short_help="Import files of Bundles and resources into a running bridge.")
@click.argument("paths", metavar="PATH…", nargs=-1, required=True)
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where the bridge is.")
@click.option("--login", help="Who imports. Asked for when neither given nor told by the key file.")
@click.option("--password-file", type=click.File(), help="Holds the password, which is asked for otherwise.")
@click.option(
    "--key", "key_file", type=click.File(), help="Private key to load first: hex, PEM, or a key file."
)
@click.option("--data-owner", help="Whose key it is, where the key file does not tell.")
@click.option(
    "--batch",
    default=200,
    show_default=True,
    type=click.IntRange(1, 20000),
    help="Loose resources in one transaction.",
)
@click.option(
    "--jobs", default=4, show_default=True, type=click.IntRange(1, 64), help="Transactions at once."
)
@click.option(
    "--state",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Remembers what was acknowledged, for the next run.",
)
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Where every OperationOutcome goes."
)
@click.option(
    "--skip-unsupported", is_flag=True, help="Leave out resource types that the server does not take."
)
@click.option(
    "--tries",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    help="How often a request is sent at most.",
)
@click.option("--run", default="", help="Another name imports the same input once more.")
def import_(
    paths: tuple[str, ...],
    url: str,
    login: str | None,
    password_file: TextIO | None,
    key_file: TextIO | None,
    data_owner: str | None,
    batch: int,
    jobs: int,
    state: Path | None,
    report: Path | None,
    skip_unsupported: bool,
    tries: int,
    run: str,
) -> None:
    """Import files of Bundles and resources into a running bridge.

    PATH is a file, a directory, a quoted glob, or - for standard input; .json, .ndjson, and both with gzip.
    """
    from bridge import importing

    try:
        url = web_url(url)
    except ValueError as e:
        raise click.UsageError(f"--url {e}. It is like http://127.0.0.1:8080.") from e
    held = [path for path in paths if path == "-"][:1]
    held += [file.name for file in (key_file, password_file) if file is not None and file.name == "<stdin>"]
    if len(held) > 1:
        raise click.UsageError("Standard input can be one of PATH, --key and --password-file.")
    try:
        files = importing.sources(paths)
    except OSError as e:
        raise click.UsageError(f"{e}.") from e
    who, key = _credentials(login, password_file, key_file, data_owner, asking="-" not in paths)
    progress = importing.Progress()
    if urlsplit(url).scheme == "http" and urlsplit(url).hostname not in ("127.0.0.1", "::1", "localhost"):
        progress.say("warning: --url is not https: password, key and resources travel in clear")
    options = importing.Options(batch, jobs, state, report, skip_unsupported, run)
    try:
        whole = importing.run(files, importing.Remote(url, who, tries), key, options, progress)
    except importing.CannotImport as e:
        raise click.ClickException(str(e)) from e
    except sqlite3.Error as e:
        raise click.ClickException(f"The disk for temporary files cannot be used: {e}.") from e
    except OSError as e:
        raise click.ClickException(f"{e.filename or 'A file'} cannot be written: {e.strerror}.") from e
    sys.exit(0 if whole else 1)


def _credentials(
    login: str | None,
    password_file: TextIO | None,
    key_file: TextIO | None,
    data_owner: str | None,
    *,
    asking: bool,
) -> tuple[Login, Key | None]:
    """Returns who imports and with which key: from the options, else the key file, else the user.

    Where standard input holds what is imported (not `asking`), nobody is asked there.
    """
    from bridge.importing import Key, Login, read_keys

    told: dict[str, str] = {}
    if key_file is not None:
        keys = [one for one in read_keys(_text(key_file)) if login in (None, one.get("login", login))]
        if len(keys) != 1:
            raise click.UsageError(
                "--key has no key for this login." if not keys else "--key has several: say --login."
            )
        (told,) = keys
    login = login or told.get("login")
    if not login and not asking:
        raise click.UsageError("--login must say who imports: standard input holds what is imported.")
    login = login or click.prompt("Login", err=True)
    if password_file is not None:
        password = _text(password_file).rstrip("\r\n")
    else:
        if "password" not in told and not asking and not _has_terminal():
            raise click.UsageError("--password-file is needed: standard input holds what is imported.")
        password = told.get("password") or click.prompt("Password", hide_input=True, err=True)
    owner = data_owner or told.get("dataOwnerId")
    if told and owner is None:
        raise click.UsageError("--data-owner must say whose key this is.")
    return Login(login, password), Key(owner, told["privateKey"]) if told and owner else None


def _has_terminal() -> bool:
    """Whether a password can be asked for beside standard input."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _text(file: TextIO) -> str:
    try:
        return file.read()
    except UnicodeDecodeError as e:
        raise click.UsageError(f"{file.name} is not a text file.") from e


@main.group()
def journal() -> None:
    """Requests that were neither finished nor undone."""


@journal.command("list")
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_entries(data_dir: Path | None, as_json: bool) -> None:
    """List the open entries."""
    with _journal(data_dir) as (_, open_journal):
        found = [_told(open_journal, entry) for entry in open_journal.open_entries()]
    if as_json:
        click.echo(json.dumps({"entries": found}, indent=2))
        return
    for one in sorted(found, key=lambda one: str(one["begun"])):
        click.echo(f"{one['id']}  {one['begun']}  {one['state']}, {one['documents']} documents")
    if not found:
        click.echo("Nothing is open.")


@journal.command()
@click.argument("entry_id", metavar="ID")
@data_dir_option
def show(entry_id: str, data_dir: Path | None) -> None:
    """Show which documents an open entry is about, and for which parts of its request."""
    with _journal(data_dir) as (_, open_journal):
        entry = _open_entry(open_journal, entry_id)
        for name, value in _told(open_journal, entry).items():
            click.echo(f"{name}: {value}")
        for step in entry.steps:
            click.echo(f"{step.method} {step.kind}/{step.id} for {', '.join(step.paths)}")


@journal.command()
@click.argument("entry_id", metavar="ID")
@click.option("--keep", is_flag=True, help="Leave its documents as they stand, and close it.")
@data_dir_option
def resolve(entry_id: str, keep: bool, data_dir: Path | None) -> None:
    """Undo an open entry now, or close it as it stands."""
    from bridge.journal import close, resolve

    with _journal(data_dir) as (bridge, open_journal):
        entry = _open_entry(open_journal, entry_id)
        if keep:
            if not close(open_journal, entry.name):
                raise click.ClickException("It is running. Wait for it, or stop its worker.")
            click.echo("Closed. Its documents stay as they are.")
            return
        try:
            left = resolve(bridge, entry.name)
        except BridgeError as e:
            raise click.ClickException(str(e)) from e
    for one in left:
        why = "somebody changed it since" if one.overtaken else "iCure did not let it be undone"
        click.echo(f"left: {one.step.kind}/{one.step.id} for {', '.join(one.step.paths)}: {why}")
    if left:
        raise click.ClickException("Not everything was undone. --keep closes it as it stands.")
    click.echo("Undone.")


@contextmanager
def _journal(data_dir: Path | None) -> Iterator[tuple[Bridge, Journal]]:
    """Yields the journal of the configured state; errors are said in words."""
    from bridge.app import create_app
    from bridge.journal import Journal

    config = _config(data_dir)
    with _said_in_words(config):
        bridge = create_app(config).extensions["bridge"]
        yield bridge, Journal(bridge.state)


def _open_entry(open_journal: Journal, entry_id: str) -> Entry:
    """Returns the one open entry whose id begins so."""
    found = [entry for entry in open_journal.open_entries() if entry.run.startswith(entry_id)]
    if len(found) != 1:
        raise click.ClickException("No open entry has this id." if not found else "Several ids begin so.")
    return found[0]


def _told(open_journal: Journal, entry: Entry) -> dict[str, object]:
    """Returns what may be told of an entry: ids and counts, nothing of its content."""
    running = (hold := open_journal.hold(entry.name)) is None
    if hold is not None:
        hold.release()
    states = {"running": running, "changed by somebody since": entry.overtaken, "watched": entry.watched}
    return {
        "id": entry.run,
        "begun": f"{datetime.fromtimestamp(entry.begun, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "state": next((state for state, holds in states.items() if holds), "to be undone"),
        "user": entry.user,
        "documents": len(entry.steps),
        "tries": entry.tries,
    }


if __name__ == "__main__":
    main()
