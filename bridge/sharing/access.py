"""Who can open a resource."""

from __future__ import annotations

from collections.abc import Collection

from bridge.homes import Record, home_of
from bridge.interactions import locate
from bridge.scope import Scope
from bridge.sharing.asked import PERMISSIONS
from mappings.party import is_kind
from mappings.values import Resource


def access(scope: Scope, resource_type: str, logical_id: str) -> Resource:
    """Returns Parameters that tell who can open a resource, with what leave, and who shared it with them.

    A data owner that keeps its name out of delegations is named only to who shared with it.
    """
    record = locate(scope, resource_type, logical_id)
    grants = _grants(scope, record)
    names = _references(scope, {owner for pair in grants for owner in pair if owner is not None})
    parts = [
        {
            "name": "access",
            "part": [
                {"name": "who", "valueReference": names[who]},
                {"name": "permission", "valueCode": PERMISSIONS[writes]},
                {"name": "through", "valueReference": names[through]},
            ],
        }
        for (who, through), writes in grants.items()
    ]
    return {"resourceType": "Parameters", "parameter": parts}


Grants = dict[tuple[str | None, str | None], bool]
"""Whether they may write, by who and through whom; None for one who does not give a name."""


def _grants(scope: Scope, record: Record) -> Grants:
    document, type_name = record.document, home_of(record.resource_type).type_name
    opened = {one.name: one.exchange_key for one in scope.keyring.held(document, type_name)}
    found: Grants = {}
    for name, members in ((document.get("securityMetadata") or {}).get("secureDelegations") or {}).items():
        known = opened.get(name)
        who = known.delegate if known else members.get("delegate")
        through = known.delegator if known else members.get("delegator")
        found[who, through] = found.get((who, through), False) or members.get("permissions") == "WRITE"
    for who, delegations in (document.get("delegations") or {}).items():
        found |= {(who, one.get("owner") or who): True for one in delegations}
    return found


def _references(scope: Scope, ids: Collection[str]) -> dict[str | None, Resource]:
    """Returns a Reference for each data owner."""
    owners = scope.client.data_owners(sorted(ids))
    parties = [owner_id for owner_id, owner in owners.items() if owner.get("type") == "hcp"]
    organizations = {p["id"] for p in scope.client.healthcare_parties(parties) if is_kind(p, "ORGANIZATION")}
    kinds = {"hcp": "Practitioner", "patient": "Patient", "device": "Device"}
    names: dict[str | None, Resource] = {None: {"display": "A data owner that does not give its name"}}
    for owner_id in ids:
        kind = kinds.get((owners.get(owner_id) or {}).get("type", ""))
        if owner_id in organizations:
            kind = "Organization"
        names[owner_id] = {"reference": f"{kind}/{owner_id}"} if kind else {"identifier": {"value": owner_id}}
    return names
