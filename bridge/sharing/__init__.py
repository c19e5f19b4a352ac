"""Sharing with another data owner, and who can open what: $share and $access.

Strategy: `asked` checks what is asked for, whole, before anything is shared. `doing` shares, a Patient's data in
batches; each part is shared or not by itself, and sharing again changes nothing that was shared before, so that
whatever was broken off is finished by sending it again. `apart` moves Services out of a Contact that they have in
common with others. `access` tells who can open a resource.

Rule: a share never reaches further than it says.
"""

from bridge.sharing.access import access
from bridge.sharing.asked import SHARED, Share, begin
from bridge.sharing.doing import Tell, run

__all__ = ["SHARED", "Share", "Tell", "access", "begin", "run"]
