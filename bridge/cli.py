"""The command `fhir-bridge`."""

from __future__ import annotations

import json
import sqlite3
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from bridge.config import Config, ConfigError, read_config
from bridge.crypto.manifest import ManifestError
from bridge.errors import BridgeError

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
        raise click.ClickException(f"The state in {config.data_dir} cannot be used: {e}") from e


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
        bridge.state.put("check", "probe", None)
    where = config.icure_url or f"the embedded store in {config.data_dir}"
    if not bridge.upstream.reachable():
        problems.append(f"iCure cannot be reached at {where}.")
    if config.icure_url.startswith("http://"):
        click.echo("warning: ICURE_URL is not https: passwords travel in clear", err=True)
    secret = config.secret_file or config.data_dir / "secret"
    if secret.stat().st_mode & 0o077:
        problems.append(f"{secret} can be read by others; chmod 600 it.")
    if problems:
        raise click.ClickException("\n".join(problems))
    click.echo(f"All is well: iCure is {where}, state in {config.data_dir}.")


if __name__ == "__main__":
    main()
