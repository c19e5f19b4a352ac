"""`fhir-bridge import`: files of Bundles and loose resources, sent to a running bridge.

Strategy: the whole input is read once and kept in a sealed spool on disk, so that what cannot be imported is known
before anything is sent, and so that what refers to each other goes together wherever in the input it stands. Then it
is packed into transactions, which are sent in parallel as far as none refers to another. What is sent has an
`Idempotency-Key` made of its content: sent again, it is done once.
"""

from bridge.importing.progress import Progress
from bridge.importing.reading import sources
from bridge.importing.remote import CannotImport, Key, Login, Remote, read_keys
from bridge.importing.whole import Options, run

__all__ = ["CannotImport", "Key", "Login", "Options", "Progress", "Remote", "read_keys", "run", "sources"]
