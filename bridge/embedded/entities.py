"""The types of entity that the store keeps: one line each."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.embedded import model


@dataclass(frozen=True, slots=True)
class EntityType:
    """One type of entity: how it is called, what it may hold, who rules over it."""

    name: str
    path: str
    """The route below `/rest/v2`."""
    shape: model.Shape
    delegated: bool = False
    """Whether delegations say who may see an entity of this type."""
    data_owner: str | None = None
    """The name of this type among data owners, when it is one."""


PATIENT = EntityType("Patient", "patient", model.PATIENT, delegated=True, data_owner="patient")
CONTACT = EntityType("Contact", "contact", model.CONTACT, delegated=True)
HEALTH_ELEMENT = EntityType("HealthElement", "helement", model.HEALTH_ELEMENT, delegated=True)
ACCESS_LOG = EntityType("AccessLog", "accesslog", model.ACCESS_LOG, delegated=True)
HEALTHCARE_PARTY = EntityType("HealthcareParty", "hcparty", model.HEALTHCARE_PARTY, data_owner="hcp")
DEVICE = EntityType("Device", "device", model.DEVICE, data_owner="device")
USER = EntityType("User", "user", model.USER)
EXCHANGE_DATA = EntityType("ExchangeData", "exchangedata", model.EXCHANGE_DATA)
EXCHANGE_DATA_MAP = EntityType("ExchangeDataMap", "exchangedatamap", model.EXCHANGE_DATA_MAP)

DELEGATED = (PATIENT, CONTACT, HEALTH_ELEMENT, ACCESS_LOG)
DATA_OWNERS = (HEALTHCARE_PARTY, PATIENT, DEVICE)
