"""Inviting a patient: the user it gets, the message that a real SMTP server takes, and every way it can fail."""

from __future__ import annotations

import datetime
import ipaddress
import re
import smtplib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fhir.resources.R4B.operationdefinition import OperationDefinition

from bridge.app import EMBEDDED_URL, create_app
from bridge.config import Config, read_config
from bridge.errors import BusinessRule, MailFailed, MailTimeout
from bridge.mail import Mail
from tests.helpers import Account, Caller, Counting, assert_outcome, free_port, saying, stored
from tests.smtp import Server, smtp_serving

SENDER = "Clinic <no-reply@clinic.example>"
SECRET = "s3cret/of the mail"
WORDS = re.compile(r"User name: (\S+)\nTemporary password: (\S+)")


@pytest.fixture(scope="module")
def smtp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with smtp_serving(tmp_path_factory.mktemp("smtp") / "mail") as server:
        yield server


@pytest.fixture
def inbox(smtp: Server) -> Callable[[], list[EmailMessage]]:
    """Gives the messages that came since the test began."""
    before = len(smtp.messages())
    return lambda: smtp.messages()[before:]


def settings(url: str, **others: str) -> Config:
    return read_config({"BRIDGE_SMTP_URL": url, "BRIDGE_SMTP_SENDER": SENDER, **others})[0]


def plain(server: Server) -> str:
    return f"smtp://127.0.0.1:{server.port}?starttls=no"


@pytest.fixture
def start(data_dir: Path, accounts: dict[str, Account]) -> Callable[..., Caller]:
    """Starts the bridge with these settings, and gives esmith, who has an e-mail address."""

    def started(config: Config, *, reachable: bool = True) -> Caller:
        app = create_app(replace(config, data_dir=data_dir))
        app.testing = True
        caller = Caller(app, accounts["esmith"])
        assert caller.load_key().status_code == 200
        if reachable:
            give_address(caller)
        return caller

    return started


def give_address(caller: Caller, kind: str = "email", number: str = "esmith@clinic.example") -> None:
    path = f"/rest/v2/hcparty/{caller.account['dataOwnerId']}"
    party = caller.get(path).json
    telecom = {"telecomType": kind, "telecomNumber": number}
    party["addresses"] = [{"addressType": "work", "telecoms": [telecom]}]
    assert caller.send("PUT", "/rest/v2/hcparty", party).status_code == 200


@pytest.fixture
def doctor(start: Callable[..., Caller], smtp: Server) -> Caller:
    return start(settings(plain(smtp), BRIDGE_INVITATION_URL="https://app.clinic.example"))


def patient(caller: Caller, *telecoms: tuple[str, str, str]) -> str:
    """Returns the id of a new patient with these telecoms: system, use, value."""
    said = [{"system": system, "use": use, "value": value} for system, use, value in telecoms]
    resource = {"resourceType": "Patient", "name": [{"family": "Poquelin", "given": ["Argan"]}]}
    return str(caller.created({**resource, **({"telecom": said} if said else {})})["id"])


def argan(caller: Caller, address: str = "argan@moliere.example") -> str:
    return patient(caller, ("email", "home", address))


def invited(caller: Caller, patient_id: str, body: Any = None) -> Any:
    return caller.post(f"Patient/{patient_id}/$invite", body)


def users_of(caller: Caller, patient_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = caller.get(f"/rest/icdx/v1/users?patientId={patient_id}").json["users"]
    return found


def values(answer: Any) -> dict[str, str]:
    return {p["name"]: next(v for n, v in p.items() if n != "name") for p in answer.json["parameter"]}


def test_an_invited_patient_logs_in_with_the_password_of_the_message(
    doctor: Caller, inbox: Callable[[], list[EmailMessage]]
) -> None:
    patient_id = argan(doctor)
    answer = invited(doctor, patient_id)
    assert answer.status_code == 200, answer.text
    told = values(answer)
    (message,) = inbox()
    assert (message["To"], message["From"]) == ("argan@moliere.example", SENDER)
    text = message.get_content()
    assert "https://app.clinic.example" in text
    login, password = WORDS.search(text).groups()  # type: ignore[union-attr]
    assert login == told["login"] == "argan@moliere.example"
    assert password not in answer.text
    tokens = doctor.post("/rest/v2/auth/login", {"username": login, "password": password}).json
    current = doctor.get("/rest/v2/user/current", Authorization=f"Bearer {tokens['token']}").json
    assert (current["id"], current["patientId"]) == (told["user"], patient_id)
    assert [user["id"] for user in users_of(doctor, patient_id)] == [told["user"]]
    ends = datetime.datetime.fromisoformat(told["expires"])
    assert datetime.timedelta(29) < ends - datetime.datetime.now(datetime.UTC) < datetime.timedelta(31)


def test_a_message_holds_neither_names_of_patients_nor_anything_medical(
    doctor: Caller, inbox: Callable[[], list[EmailMessage]]
) -> None:
    patient_id = argan(doctor)
    assert invited(doctor, patient_id).status_code == 200
    (message,) = inbox()
    for private in ("Poquelin", "Argan", patient_id):
        assert private not in str(message)


TELECOMS = {
    "home before work": ([("email", "work", "w@x.example"), ("email", "home", "h@x.example")], "h@x.example"),
    "work before others": (
        [("email", "old", "o@x.example"), ("email", "work", "w@x.example")],
        "w@x.example",
    ),
    "an address before what is none": (
        [("email", "home", "somewhere"), ("email", "work", "w@x.example")],
        "w@x.example",
    ),
    "e-mail before mobile": (
        [("phone", "mobile", "+32470000001"), ("email", "old", "o@x.example")],
        "o@x.example",
    ),
}


@pytest.mark.parametrize(("telecoms", "chosen"), TELECOMS.values(), ids=TELECOMS)
def test_the_nearest_address_is_chosen(
    doctor: Caller,
    inbox: Callable[[], list[EmailMessage]],
    telecoms: list[tuple[str, str, str]],
    chosen: str,
) -> None:
    assert invited(doctor, patient(doctor, *telecoms)).status_code == 200
    assert [message["To"] for message in inbox()] == [chosen]


def test_a_mobile_number_of_the_inviter_is_enough(start: Callable[..., Caller], smtp: Server) -> None:
    caller = start(settings(plain(smtp)), reachable=False)
    give_address(caller, "mobile", "+32470000001")
    assert invited(caller, argan(caller)).status_code == 200


UNMET = {
    "no telecom": ([], "no e-mail", "Patient.telecom"),
    "mobile only": ([("phone", "mobile", "+32470000001")], "/rest/icdx/v1/users", "Patient.telecom"),
    "telephone only": ([("phone", "home", "+3225551234")], "no e-mail", "Patient.telecom"),
    "no e-mail address": ([("email", "home", "somewhere")], "no e-mail address", "Patient.telecom"),
    "header in it": ([("email", "home", "a@b.example\nBcc: c@d.example")], "no e-mail", "Patient.telecom"),
    "two addresses": ([("email", "home", "a@b.example, c@d.example")], "no e-mail", "Patient.telecom"),
}


@pytest.mark.parametrize(("telecoms", "words", "path"), UNMET.values(), ids=UNMET)
def test_a_patient_that_cannot_be_reached_is_not_invited(
    doctor: Caller,
    data_dir: Path,
    inbox: Callable[[], list[EmailMessage]],
    telecoms: list[tuple[str, str, str]],
    words: str,
    path: str,
) -> None:
    patient_id = patient(doctor, *telecoms)
    before = stored(data_dir)
    answer = invited(doctor, patient_id)
    assert_outcome(answer, 422, "business-rule", path)
    assert words in answer.text
    assert stored(data_dir) == before
    assert inbox() == []


def test_a_patient_with_a_mobile_number_only_is_given_a_user_by_hand(doctor: Caller) -> None:
    patient_id = patient(doctor, ("phone", "mobile", "+32470000001"))
    assert_outcome(invited(doctor, patient_id), 422, "business-rule", "Patient.telecom")
    said = {"mobilePhone": "+32470000001", "patientId": patient_id, "password": "told on the phone"}
    assert doctor.post("/rest/icdx/v1/users", said).status_code == 201
    credentials = {"username": "+32470000001", "password": "told on the phone"}
    token = doctor.post("/rest/v2/auth/login", credentials).json["token"]
    current = doctor.get("/rest/v2/user/current", Authorization=f"Bearer {token}").json
    assert current["patientId"] == patient_id


def test_who_cannot_be_reached_invites_nobody(start: Callable[..., Caller], smtp: Server) -> None:
    caller = start(settings(plain(smtp)), reachable=False)
    answer = invited(caller, argan(caller))
    assert_outcome(answer, 422, "business-rule")
    assert "You have neither" in answer.text


def test_an_address_of_another_user_is_refused(doctor: Caller, data_dir: Path) -> None:
    assert doctor.post("/rest/icdx/v1/users", {"email": "argan@moliere.example"}).status_code == 201
    patient_id = argan(doctor)
    before = stored(data_dir)
    assert_outcome(invited(doctor, patient_id), 422, "business-rule", "Patient.telecom")
    assert stored(data_dir) == before


def test_a_patient_is_invited_once(doctor: Caller, inbox: Callable[[], list[EmailMessage]]) -> None:
    patient_id = argan(doctor)
    user = values(invited(doctor, patient_id))["user"]
    again = invited(doctor, patient_id)
    assert_outcome(again, 422, "business-rule", "Patient")
    assert user in again.text
    assert len(inbox()) == 1


def test_an_invitation_that_is_sent_again_under_its_key_is_told_again_and_goes_out_once(
    doctor: Caller, inbox: Callable[[], list[EmailMessage]]
) -> None:
    path = f"Patient/{argan(doctor)}/$invite"
    first, second = (doctor.post(path, None, Idempotency_Key="mine") for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200)
    assert second.json == first.json
    assert len(inbox()) == 1
    other = doctor.post(f"Patient/{argan(doctor, 'b@x.example')}/$invite", None, Idempotency_Key="mine")
    assert_outcome(other, 422, "business-rule")


def test_the_operation_is_listed_where_there_is_a_mail_server(doctor: Caller) -> None:
    rest = doctor.get("metadata").json["rest"][0]
    (listed,) = (r for r in rest["resource"] if r["type"] == "Patient")
    said = {one["name"]: one["definition"] for one in listed["operation"]}
    defined = doctor.get(said["invite"])
    assert OperationDefinition.model_validate(defined.json).code == "invite"
    assert defined.json["resource"] == ["Patient"]


def test_the_operation_is_not_listed_without(esmith: Caller) -> None:
    rest = esmith.get("metadata").json["rest"][0]
    assert "invite" not in {o["name"] for r in rest["resource"] for o in r.get("operation", [])}


def test_an_unknown_patient_is_not_found(doctor: Caller) -> None:
    assert_outcome(invited(doctor, "nobody"), 404, "not-found")


def test_parameters_are_refused(doctor: Caller, data_dir: Path) -> None:
    patient_id = argan(doctor)
    before = stored(data_dir)
    some = {"resourceType": "Parameters", "parameter": [{"name": "email", "valueString": "x@y.example"}]}
    assert_outcome(invited(doctor, patient_id, some), 400, "invalid", "Parameters.parameter")
    assert_outcome(invited(doctor, patient_id, b"{"), 400)
    assert stored(data_dir) == before
    assert invited(doctor, patient_id, {"resourceType": "Parameters"}).status_code == 200


def test_who_may_make_no_users_invites_nobody(
    doctor: Caller, accounts: dict[str, Account], inbox: Callable[[], list[EmailMessage]]
) -> None:
    jdoe = Caller(doctor.app, accounts["jdoe"])
    jdoe.load_key()
    give_address(jdoe)
    answer = invited(jdoe, argan(jdoe))
    assert_outcome(answer, 403, "forbidden")
    assert "administrators" in answer.text
    assert inbox() == []


def test_who_has_no_key_invites_nobody_and_nor_does_a_patient(
    doctor: Caller, inbox: Callable[[], list[EmailMessage]]
) -> None:
    patient_id = argan(doctor)
    said = {"login": "argan", "patientId": patient_id, "password": "told on the phone"}
    assert doctor.post("/rest/icdx/v1/users", said).status_code == 201
    of_the_patient = {"login": "argan", "password": "told on the phone", "dataOwnerId": patient_id}
    assert_outcome(invited(Caller(doctor.app, of_the_patient), patient_id), 403)
    assert doctor.delete(f"/rest/icdx/v1/keychain/{doctor.account['dataOwnerId']}").status_code == 204
    assert_outcome(invited(doctor, patient_id), 403, "security")
    assert inbox() == []


def test_without_a_mail_server_nobody_is_invited(esmith: Caller, data_dir: Path) -> None:
    patient_id = argan(esmith)
    before = stored(data_dir)
    answer = invited(esmith, patient_id)
    assert_outcome(answer, 501, "not-supported")
    assert "BRIDGE_SMTP_URL" in answer.text
    assert stored(data_dir) == before


def test_a_message_that_is_refused_leaves_no_user(doctor: Caller) -> None:
    patient_id = argan(doctor, "full@moliere.example")
    for _ in range(2):
        answer = invited(doctor, patient_id)
        assert_outcome(answer, 502, "transient")
        assert "452" in answer.text
        assert "removed again" in answer.text
        assert "full@" not in answer.text
        assert users_of(doctor, patient_id) == []


@pytest.mark.parametrize(("address", "words"), [("refused@x.example", "550"), ("é@x.example", "ASCII")])
def test_an_address_that_gets_no_mail_is_a_condition_that_fails(
    doctor: Caller, address: str, words: str
) -> None:
    patient_id = argan(doctor, address)
    for _ in range(2):
        answer = invited(doctor, patient_id)
        assert_outcome(answer, 422, "business-rule", "Patient.telecom")
        assert words in answer.text
        assert "removed again" in answer.text
        assert address not in answer.text
        assert users_of(doctor, patient_id) == []


def test_of_two_patients_with_one_address_one_is_invited(
    doctor: Caller, inbox: Callable[[], list[EmailMessage]]
) -> None:
    patients = [argan(doctor) for _ in range(4)]
    with ThreadPoolExecutor(len(patients)) as pool:
        answers = list(pool.map(lambda patient_id: invited(doctor, patient_id), patients))
    (well,) = (answer for answer in answers if answer.status_code == 200)
    for refused in answers:
        if refused is not well:
            assert_outcome(refused, 422, "business-rule", "Patient.telecom")
    assert len(inbox()) == 1


class Faulty(Counting):
    """Lets one call fail, before it arrives or after."""

    at, arrives = 0, False

    def send(self, request: Any, **options: Any) -> Any:
        if len(self.calls) + 1 != self.at:
            return super().send(request, **options)
        self.calls.append(("", "", b""))
        if self.arrives:
            self.inner.send(request, **options)
        raise requests.ReadTimeout


WRITES = 2
"""Calls with which an invitation changes something in iCure; they are its last."""


@pytest.mark.parametrize("arrives", [False, True])
def test_no_user_is_left_over_whichever_write_fails(
    doctor: Caller, inbox: Callable[[], list[EmailMessage]], arrives: bool
) -> None:
    session = doctor.app.extensions["bridge"].upstream.session
    faulty = Faulty(session.get_adapter(EMBEDDED_URL))
    session.mount(EMBEDDED_URL, faulty)
    warm = argan(doctor, "warm@moliere.example")
    faulty.told()
    assert invited(doctor, warm).status_code == 200
    calls = len(faulty.told())
    for at in range(calls - WRITES + 1, calls + 1):
        patient_id = argan(doctor, f"argan{at}@moliere.example")
        faulty.told()
        faulty.at, faulty.arrives = at, arrives
        assert_outcome(invited(doctor, patient_id), 504, "timeout")
        faulty.at = 0
        assert users_of(doctor, patient_id) == []
        assert invited(doctor, patient_id).status_code == 200
    assert len(inbox()) == 1 + WRITES


def test_a_user_that_may_be_left_over_is_named(doctor: Caller, smtp: Server) -> None:
    session = doctor.app.extensions["bridge"].upstream.session

    class Down(Counting):
        def send(self, request: Any, **options: Any) -> Any:
            if any(path == "user" and method == "POST" for method, path, _ in self.calls):
                raise requests.ConnectionError
            return super().send(request, **options)

    down, up = Down(session.get_adapter(EMBEDDED_URL)), session.get_adapter(EMBEDDED_URL)
    patient_id = argan(doctor)
    session.mount(EMBEDDED_URL, down)
    answer = invited(doctor, patient_id)
    session.mount(EMBEDDED_URL, up)
    assert_outcome(answer, 502, "incomplete")
    (user,) = users_of(doctor, patient_id)
    assert user["id"] in answer.text


def test_a_server_that_breaks_off_may_have_sent_it(doctor: Caller) -> None:
    patient_id = argan(doctor, "broken@moliere.example")
    answer = invited(doctor, patient_id)
    assert_outcome(answer, 504, "timeout")
    assert "may have been sent" in answer.text
    assert users_of(doctor, patient_id) == []


def test_a_server_that_cannot_be_reached_sends_nothing(start: Callable[..., Caller]) -> None:
    caller = start(settings(f"smtp://127.0.0.1:{free_port()}?starttls=no"))
    patient_id = argan(caller)
    answer = invited(caller, patient_id)
    assert_outcome(answer, 502, "transient")
    assert users_of(caller, patient_id) == []


def test_a_slow_server_is_not_waited_for(smtp: Server) -> None:
    config = settings(plain(smtp))
    assert config.smtp_server is not None
    with pytest.raises(MailTimeout):
        Mail(config.smtp_server, SENDER, answer_seconds=5).send("slow@x.example", "a", "b")


def test_a_login_that_a_server_asks_for_oddly_is_a_failure_in_words() -> None:
    asks = b"250-mail.example\r\n250 AUTH CRAM-MD5\r\n", b"334 abc\r\n", b"221 Bye\r\n"
    with saying(*asks, greeting=b"220 mail.example\r\n") as url:
        server = settings(f"smtp://{urlsplit(url).netloc}?starttls=no").smtp_server
        assert server is not None
        with pytest.raises(MailFailed):
            Mail(replace(server, user="bridge", password="secret"), SENDER).check()


@pytest.mark.parametrize("address", ["argan@moliere..example", "=?utf-8?q?argan?=@moliere.example"])
def test_a_message_goes_to_nobody_but_the_address_that_was_given(
    smtp: Server, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not to what its header may be read as."""
    asked = []

    def rcpt(session: smtplib.SMTP, to: str, options: Any = ()) -> Any:
        asked.append(to)
        return 550, b"no such mailbox"

    monkeypatch.setattr(smtplib.SMTP, "rcpt", rcpt)
    server = settings(plain(smtp)).smtp_server
    assert server is not None
    with pytest.raises(BusinessRule):
        Mail(server, SENDER).send(address, "a", "b")
    assert asked == [address]


# encrypted


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and its certificate for 127.0.0.1, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + made.public_bytes(Encoding.PEM))
    return file


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_message_goes_encrypted_and_with_a_login(scheme: str, certificate: Path, tmp_path: Path) -> None:
    options = ["--certificate", str(certificate), "--login", f"bridge:{SECRET}"]
    if scheme == "smtps":
        options.append("--smtps")
    with smtp_serving(tmp_path / "mail", *options) as server:
        at = f"127.0.0.1:{server.port}?ca_certs={certificate}"

        def mail(user: str) -> Mail:
            config = settings(f"{scheme}://{user}{at}")
            assert config.smtp_server is not None
            assert SECRET not in repr(config)
            return Mail(config.smtp_server, SENDER)

        right = mail("bridge:s3cret%2Fof%20the%20mail@")
        right.check()
        right.send("argan@moliere.example", "Subject", "Text")
        (message,) = server.messages()
        assert message.get_content() == "Text\n"
        with pytest.raises(MailFailed, match="login"):
            mail("bridge:wrong@").check()
        with pytest.raises(MailFailed, match="trusted"):
            stranger = settings(f"{scheme}://127.0.0.1:{server.port}").smtp_server
            assert stranger is not None
            Mail(stranger, SENDER).check()


def test_a_server_without_starttls_gets_nothing(smtp: Server) -> None:
    server = settings(f"smtp://127.0.0.1:{smtp.port}").smtp_server
    assert server is not None
    with pytest.raises(MailFailed):
        Mail(server, SENDER).check()
