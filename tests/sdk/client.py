"""iCure's own SDK for JavaScript, driven from Python: what it returns is what any iCure client would see."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from tests import npm

HERE = Path(__file__).parent


class SdkError(Exception):
    """The SDK refused or failed."""


def install() -> None:
    """Installs the SDK beside this file; skips the test where that is not possible, which in CI is a failure."""
    npm.install(HERE, "iCure's SDK")


class Sdk:
    """One logged-in instance of the SDK in a Node process of its own; its methods return entities as dicts."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    def start(cls, url: str, login: str, password: str, data_owner_id: str, private_key_hex: str) -> Self:
        """Logs in at the server with base `url` (without `/rest/v2`), with this private key (PKCS#8, hex)."""
        process = subprocess.Popen(
            ["node", str(HERE / "driver.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        sdk = cls(process)
        try:
            sdk.call(
                "login",
                url=url.rstrip("/"),
                login=login,
                password=password,
                dataOwnerId=data_owner_id,
                privateKey=private_key_hex,
                publicKey=public_key_hex(private_key_hex),
            )
        except BaseException:
            sdk.close()
            raise
        return sdk

    @classmethod
    def start_without_keys(cls, url: str, login: str, password: str) -> Self:
        """Logs in somebody who need not be a data owner: only users and their like can be asked for."""
        sdk = cls(
            subprocess.Popen(
                ["node", str(HERE / "driver.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
        try:
            sdk.call("loginWithoutKeys", url=url.rstrip("/"), login=login, password=password)
        except BaseException:
            sdk.close()
            raise
        return sdk

    def close(self) -> None:
        """Ends the Node process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.terminate()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def call(self, command: str, **arguments: Any) -> Any:
        """Returns the answer to a command of the driver; raises `SdkError`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        given = {name: value for name, value in arguments.items() if value is not None}
        self._process.stdin.write(json.dumps({"command": command} | given) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SdkError(f"the driver ended during {command}")
        answer = json.loads(line)
        if "error" in answer:
            raise SdkError(answer["error"])
        return answer["result"]

    def create_patient(self, patient: dict[str, Any], delegates: list[str] | None = None) -> dict[str, Any]:
        return self.call("createPatient", patient=patient, delegates=delegates)

    def get_patient(self, patient_id: str) -> dict[str, Any]:
        return self.call("getPatient", id=patient_id)

    def update_patient(self, patient_id: str, changes: dict[str, Any]) -> dict[str, Any]:
        return self.call("updatePatient", id=patient_id, changes=changes)

    def delete_patient(self, patient_id: str) -> dict[str, Any]:
        return self.call("deletePatient", id=patient_id)

    def share_patient_with(self, patient_id: str, delegate: str) -> dict[str, Any]:
        return self.call("sharePatientWith", id=patient_id, delegate=delegate)

    def share_patient_as_it_was(self, patient_id: str, delegates: list[str]) -> dict[str, Any]:
        """Shares one state of it with each of these, and then writes that state."""
        return self.call("sharePatientAsItWas", id=patient_id, delegates=delegates)

    def secret_ids_of_patient(self, patient_id: str) -> list[str]:
        return self.call("secretIdsOfPatient", id=patient_id)

    def find_patients(self, **criteria: Any) -> list[dict[str, Any]]:
        """Returns the caller's patients; criteria: name, identifier, gender, birthDates=[from, to], ids."""
        return self.call("findPatients", **criteria)

    def create_contact(
        self, patient_id: str, contact: dict[str, Any], delegates: list[str] | None = None
    ) -> dict[str, Any]:
        return self.call("createContact", patientId=patient_id, contact=contact, delegates=delegates)

    def get_contact(self, contact_id: str) -> dict[str, Any]:
        return self.call("getContact", id=contact_id)

    def update_contact(self, contact_id: str, changes: dict[str, Any]) -> dict[str, Any]:
        return self.call("updateContact", id=contact_id, changes=changes)

    def delete_contact(self, contact_id: str) -> dict[str, Any]:
        return self.call("deleteContact", id=contact_id)

    def patient_of_contact(self, contact_id: str) -> list[str]:
        return self.call("patientOfContact", id=contact_id)

    def share_contact_with(self, contact_id: str, delegate: str) -> dict[str, Any]:
        return self.call("shareContactWith", id=contact_id, delegate=delegate)

    def create_health_element(self, patient_id: str, health_element: dict[str, Any]) -> dict[str, Any]:
        return self.call("createHealthElement", patientId=patient_id, healthElement=health_element)

    def get_health_element(self, health_element_id: str) -> dict[str, Any]:
        return self.call("getHealthElement", id=health_element_id)

    def update_health_element(self, health_element_id: str, changes: dict[str, Any]) -> dict[str, Any]:
        return self.call("updateHealthElement", id=health_element_id, changes=changes)

    def delete_health_element(self, health_element_id: str) -> dict[str, Any]:
        return self.call("deleteHealthElement", id=health_element_id)

    def patient_of_health_element(self, health_element_id: str) -> list[str]:
        return self.call("patientOfHealthElement", id=health_element_id)

    def share_health_element_with(self, health_element_id: str, delegate: str) -> dict[str, Any]:
        return self.call("shareHealthElementWith", id=health_element_id, delegate=delegate)

    def create_party(self, party: dict[str, Any]) -> dict[str, Any]:
        return self.call("createParty", party=party)

    def get_party(self, party_id: str) -> dict[str, Any]:
        return self.call("getParty", id=party_id)

    def update_party(self, party_id: str, changes: dict[str, Any]) -> dict[str, Any]:
        return self.call("updateParty", id=party_id, changes=changes)

    def get_service(self, service_id: str) -> dict[str, Any]:
        return self.call("getService", id=service_id)

    def update_service(self, service_id: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Changes a Service where it stands, with a new `modified`; returns its Contact."""
        return self.call("updateService", id=service_id, changes=changes)

    def find_services(self, **criteria: Any) -> list[dict[str, Any]]:
        """Returns the caller's services; one criterion: code={type, code}, tag={type, code}, identifier."""
        return self.call("findServices", **criteria)

    def find_services_of_patient(self, patient_id: str) -> list[dict[str, Any]]:
        return self.call("findServicesOfPatient", patientId=patient_id)

    def find_contacts_of_patient(self, patient_id: str) -> list[dict[str, Any]]:
        return self.call("findContactsOfPatient", patientId=patient_id)

    def current_user(self) -> dict[str, Any]:
        return self.call("currentUser")

    def current_data_owner(self) -> dict[str, Any]:
        return self.call("currentDataOwner")

    def create_user(self, user: dict[str, Any]) -> dict[str, Any]:
        return self.call("createUser", user=user)

    def get_user(self, user_id: str) -> dict[str, Any]:
        return self.call("getUser", id=user_id)

    def get_user_by_email(self, email: str) -> dict[str, Any]:
        return self.call("getUserByEmail", email=email)

    def find_users(self, **criteria: Any) -> list[dict[str, Any]]:
        """Returns users; one criterion: patientId or ids."""
        return self.call("findUsers", **criteria)

    def find_access_logs(self, patient_id: str) -> list[dict[str, Any]]:
        """Returns who was shown a patient, as the caller may read it."""
        return self.call("findAccessLogs", patientId=patient_id)

    def patient_of_access_log(self, access_log_id: str) -> list[str]:
        return self.call("patientOfAccessLog", id=access_log_id)

    def update_user(self, user_id: str, changes: dict[str, Any]) -> dict[str, Any]:
        return self.call("updateUser", id=user_id, changes=changes)

    def delete_user(self, user_id: str) -> dict[str, Any]:
        return self.call("deleteUser", id=user_id)

    def subscribe(self, *events: str, tag: dict[str, str] | None = None) -> int:
        """Returns a number for a new subscription: to Services with a tag, else to the caller's patients."""
        return int(self.call("subscribe", tag=tag, events=list(events)))

    def next_event(self, subscription: int, seconds: float) -> dict[str, Any] | None:
        """Returns kind and id of the next event, None when none came in time."""
        return self.call("nextEvent", subscription=subscription, milliseconds=int(seconds * 1000))

    def unsubscribe(self, subscription: int) -> bool:
        return bool(self.call("unsubscribe", subscription=subscription))

    def create_token(self, user_id: str, seconds: int) -> str:
        return self.call("createToken", userId=user_id, seconds=seconds)


def public_key_hex(private_key_hex: str) -> str:
    """Returns the public half (SPKI, hex) of a private key (PKCS#8, hex)."""
    key = load_der_private_key(bytes.fromhex(private_key_hex), None)
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()
