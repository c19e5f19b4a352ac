from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import settings

from bridge import demo
from bridge.app import create_app
from bridge.config import Config
from tests.helpers import CORPUS, Caller, redis_serving

settings.register_profile("explore", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "explore")


@pytest.fixture(scope="session")
def demo_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data dir with the demo environment; copied, never used."""
    folder = tmp_path_factory.mktemp("template")
    demo.ensure(Config(data_dir=folder))
    gc.collect()  # closes the databases: open ones may change while they are copied
    return folder


@pytest.fixture
def data_dir(demo_template: Path, tmp_path: Path) -> Path:
    """A fresh demo environment."""
    return Path(shutil.copytree(demo_template, tmp_path / "data"))


@pytest.fixture
def config(data_dir: Path) -> Config:
    return Config(data_dir=data_dir)


@pytest.fixture
def app(config: Config) -> Any:
    application = create_app(config)
    application.testing = True
    return application


@pytest.fixture
def accounts(data_dir: Path) -> dict[str, dict[str, str]]:
    return {account["name"]: account for account in demo.accounts(data_dir)}


@pytest.fixture
def esmith(app: Any, accounts: dict[str, dict[str, str]]) -> Caller:
    """A caller whose key is loaded."""
    caller = Caller(app, accounts["esmith"])
    assert caller.load_key().status_code == 200
    return caller


@pytest.fixture
def jdoe(app: Any, accounts: dict[str, dict[str, str]]) -> Caller:
    """Another one, with whom nothing is shared."""
    caller = Caller(app, accounts["jdoe"])
    assert caller.load_key().status_code == 200
    return caller


@pytest.fixture(scope="session")
def corpus() -> Iterator[Path]:
    """HL7's examples, an extra corpus beside the project; skipped where it is absent."""
    if not CORPUS.is_dir():
        pytest.skip("no corpus: set BRIDGE_CORPUS to a folder of FHIR examples")
    yield CORPUS


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis of this run; skipped where there is no `redis-server`, which in CI is a failure."""
    with redis_serving(tmp_path_factory.mktemp("redis")) as (_, url):
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of an empty Redis."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server
