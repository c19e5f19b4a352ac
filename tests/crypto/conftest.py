from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge.crypto.keys import PrivateKey

from .world import CountingKey, World


@pytest.fixture(scope="session")
def key() -> Callable[[int], CountingKey]:
    """Gives the n-th key of this run."""
    made: dict[int, CountingKey] = {}

    def nth(n: int) -> CountingKey:
        if n not in made:
            made[n] = CountingKey.generate()
        return made[n]

    return nth


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def a_key(key: Callable[[int], PrivateKey]) -> PrivateKey:
    return key(0)
