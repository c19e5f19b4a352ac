"""An iCure-compatible server in one directory: Flask over SQLite, for one machine.

Strategy: `app` and `routes` speak HTTP, `documents`, `services`, `sharing` and `users` hold the rules, `store`
keeps documents and index, `model` knows what an entity may hold. It stores what it is given and knows nothing
of the bridge.
"""

from bridge.embedded.adapter import InProcess
from bridge.embedded.app import create_app
from bridge.embedded.store import Store

__all__ = ["InProcess", "Store", "create_app"]
