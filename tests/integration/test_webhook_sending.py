"""Sending one event: what is signed, where it may go, and what a receiver can do to the notifier."""

import asyncio
import base64
import errno
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
from standardwebhooks import Webhook

from consumers.notifying import sending
from consumers.notifying.sending import MAX_RESPONSE_BYTES, NoSocketError, Sender
from orchestrator.webhooks.addresses import ReceiverAddresses
from orchestrator.webhooks.deliveries import Claimed
from orchestrator.webhooks.model import MAX_RESPONSE_LENGTH, Attempt
from orchestrator.webhooks.secrets import Sealer, UnreadableSecretError, new_secret
from schemas.statuses import DeliveryProblem
from tests.support.receiver import Receiver, running_receiver, self_signed
from tests.support.waiting import eventually
from tests.support.webhook_keys import FIRST_KEY, SECOND_KEY

LOOPBACK = (ip_network("127.0.0.0/8"),)
SEALER = Sealer([FIRST_KEY.encode()])
SECRET, PREVIOUS = new_secret(), new_secret()
EVENT_ID = UUID("5f0c5b1e-7a3d-5b0e-9d6c-3d7c1a1f7a10")
BODY = '{"type":"BatchCompleted","data":{"label":"æ"}}'

# What must not end an attempt ends it after this time; what may, after the other.
PATIENT_S, IMPATIENT_S = 60.0, 0.5


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with running_receiver() as running:
        yield running


def claimed(url: str, *, previous: str | None = None, sealer: Sealer = SEALER) -> Claimed:
    sealed = None if previous is None else sealer.seal(previous)
    return Claimed(uuid4(), EVENT_ID, "BatchCompleted", BODY, 1, True, url, sealer.seal(SECRET), sealed)


def send(*deliveries: Claimed, allowed: Any = LOOPBACK, timeout_s: float = PATIENT_S, sealer: Sealer = SEALER) -> list[Attempt]:
    async def main() -> list[Attempt]:
        async with Sender(ReceiverAddresses(allowed), sealer, timeout_s=timeout_s) as sender:
            return list(await asyncio.gather(*(sender.send(each) for each in deliveries)))

    return asyncio.run(main())


def result(url: str, **how: Any) -> Attempt:
    [attempt] = send(claimed(url), **how)
    return attempt


def test_an_event_is_signed_as_standard_webhooks_says(receiver: Receiver) -> None:
    [attempt] = send(claimed(receiver.url("/signed/200"), previous=PREVIOUS))
    assert (attempt.problem, attempt.status, attempt.response) == (None, 200, "told 200\N{REPLACEMENT CHARACTER}")
    [request] = receiver.of("/signed/200")
    assert (request.body.decode(), request.headers["content-type"]) == (BODY, "application/json")
    assert request.headers["webhook-id"] == str(EVENT_ID)
    for secret in (SECRET, PREVIOUS):
        assert Webhook(secret).verify(request.body, request.headers) == json.loads(BODY)
    assert len(request.headers["webhook-signature"].split(" ")) == 2


def test_the_library_of_another_language_verifies_the_signature(receiver: Receiver, tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(Path(__file__).parent / "standardwebhooks" / name, tmp_path)
    installed = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if installed.returncode:
        pytest.skip("npm can't install standardwebhooks here")
    send(claimed(receiver.url("/node/204"), previous=PREVIOUS))
    [request] = receiver.of("/node/204")
    script = (
        "const { Webhook } = require('standardwebhooks');"
        "const { secrets, body, headers } = JSON.parse(require('fs').readFileSync(0));"
        "for (const secret of secrets) { new Webhook(secret).verify(body, headers); }"
        "try { new Webhook(secrets[0]).verify(body + ' ', headers); } catch { console.log('verified'); }"
    )
    told = json.dumps({"secrets": [SECRET, PREVIOUS], "body": request.body.decode(), "headers": request.headers})
    checked = subprocess.run(["node", "-e", script], cwd=tmp_path, input=told, capture_output=True, text=True, check=True)
    assert checked.stdout == "verified\n"


@pytest.mark.parametrize(
    ("path", "problem", "status"),
    [
        ("/204", None, 204),
        ("/299", None, 299),
        ("/300", DeliveryProblem.REDIRECT, 300),
        ("/399", DeliveryProblem.REDIRECT, 399),
        ("/400", DeliveryProblem.STATUS, 400),
        ("/500", DeliveryProblem.STATUS, 500),
        ("/410", DeliveryProblem.STATUS, 410),
        ("/reset", DeliveryProblem.CONNECTION_FAILED, None),
        ("/redirect", DeliveryProblem.REDIRECT, 302),
        ("/redirect-here", DeliveryProblem.REDIRECT, 307),
        ("/bomb", None, 200),
    ],
)
def test_what_a_response_means(receiver: Receiver, path: str, problem: DeliveryProblem | None, status: int | None) -> None:
    before = len(receiver.requests)
    attempt = result(receiver.url(path))
    assert (attempt.problem, attempt.status) == (problem, status)
    # No redirect was followed.
    assert [request.path for request in receiver.requests[before:]] == [path]


@pytest.mark.parametrize("path", ["/hang", "/trickle"])
def test_a_receiver_that_takes_its_time_is_left(receiver: Receiver, path: str) -> None:
    attempt = result(receiver.url(path), timeout_s=IMPATIENT_S)
    assert attempt.problem is DeliveryProblem.TIMEOUT
    assert attempt.took_ms >= IMPATIENT_S * 900, "in milliseconds"


def test_a_body_without_an_end_is_cut(receiver: Receiver) -> None:
    before = receiver.sent
    attempt = result(receiver.url("/endless"))
    assert (attempt.problem, attempt.response) == (None, "x" * MAX_RESPONSE_LENGTH)
    # What the sockets between hold, and not more.
    assert receiver.sent - before < 100 * MAX_RESPONSE_BYTES


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/letters", "\N{WAVING HAND SIGN}" * MAX_RESPONSE_LENGTH),
        ("/lines", "one\n\ttwo\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[1m\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_of_a_response_the_first_characters_are_shown_and_none_that_moves_the_cursor(
    receiver: Receiver, path: str, shown: str
) -> None:
    assert result(receiver.url(path)).response == shown


def test_an_address_is_requested_as_it_is_written(receiver: Receiver) -> None:
    """Another spelling may be another place to the receiver, or another password."""
    path = "/%41%2fb;c=%7E/204"
    assert result(receiver.url(path)).status == 204
    assert [request.path for request in receiver.requests[-1:]] == [path]


def test_a_receivers_cookie_is_not_sent_to_it(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would tell it which organizations one notifier serves. (Cookies are only kept for names.)"""
    monkeypatch.setattr(socket, "getaddrinfo", Names("127.0.0.1", "127.0.0.1"))
    delivery = claimed(f"http://receiver.example.org:{receiver.port}/cookie")

    async def main() -> list[Attempt]:
        async with Sender(ReceiverAddresses(LOOPBACK), SEALER, timeout_s=PATIENT_S) as sender:
            return [await sender.send(delivery) for _ in range(2)]

    assert [attempt.status for attempt in asyncio.run(main())] == [200, 200]
    assert ["cookie" in request.headers for request in receiver.of("/cookie")] == [False, False]


def test_headers_without_an_end_are_an_error(receiver: Receiver) -> None:
    assert result(receiver.url("/endless-headers")).problem is DeliveryProblem.CONNECTION_FAILED


def test_no_connection_is_made_to_an_address_that_is_not_allowed(receiver: Receiver) -> None:
    before = receiver.connections
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "0.0.0.0", "[::ffff:127.0.0.1]"):
        for scheme in ("http", "https"):
            attempt = result(f"{scheme}://{host}:{receiver.port}/200", allowed=())
            assert attempt.problem in (DeliveryProblem.ADDRESS_REFUSED, DeliveryProblem.CONNECTION_FAILED), host
            assert receiver.connections == before
    assert result(f"https://127.0.0.1:{receiver.port}/200", allowed=()).problem is DeliveryProblem.ADDRESS_REFUSED


class Names:
    """Answers lookups with another address each time."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.looked_up = 0

    def __call__(self, host: str, port: int, *_: object, **__: object) -> list[Any]:
        self.looked_up += 1
        address = self.addresses.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]


def test_a_name_that_changes_its_address_gains_nothing(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    before = receiver.connections
    # The second answer is never asked for: what was checked is what is connected to.
    names = Names("10.0.0.1", "127.0.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", names)
    url = f"http://rebinding.example.org:{receiver.port}/200"
    assert result(url).problem is DeliveryProblem.ADDRESS_REFUSED
    assert (names.looked_up, receiver.connections) == (1, before)
    names = Names("127.0.0.1", "10.0.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", names)
    assert result(url).problem is None
    assert (names.looked_up, receiver.connections) == (1, before + 1)


def test_without_tls_only_to_allowed_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Names("93.184.215.14"))
    assert result("http://public.example.org/").problem is DeliveryProblem.ADDRESS_REFUSED


def test_a_name_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert result("https://nobody.example.org/").problem is DeliveryProblem.NAME_UNKNOWN


def test_the_certificate_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = self_signed(tmp_path)
    with running_receiver(certificate) as receiver:
        url = f"https://127.0.0.1:{receiver.port}/200"
        assert result(url).problem is DeliveryProblem.TLS_FAILED
        assert receiver.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert result(url).problem is None
        # Of another host.
        assert result(f"https://127.0.0.2:{receiver.port}/200").problem in (
            DeliveryProblem.TLS_FAILED,
            DeliveryProblem.CONNECTION_FAILED,
        )


def connected_ports() -> set[int]:
    """The ports at the other ends of this process's connections."""
    return {each.raddr.port for each in psutil.Process().net_connections() if each.raddr}


def test_a_receiver_that_never_agrees_to_the_end_of_tls_keeps_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    kept: list[ssl.SSLSocket] = []

    def respond_once(listening: socket.socket) -> None:
        kept.append(tls.wrap_socket(listening.accept()[0], server_side=True))
        kept[0].recv(65_536)
        kept[0].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def main(port: int) -> Attempt:
        async with Sender(ReceiverAddresses(LOOPBACK), SEALER) as sender:
            attempt = await sender.send(claimed(f"https://127.0.0.1:{port}/200"))
            # asyncio itself would give up after 30 s.
            await asyncio.to_thread(eventually, lambda: port not in connected_ports(), within_s=10)
            return attempt

    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=respond_once, args=(listening,))
        serving.start()
        attempt = asyncio.run(main(listening.getsockname()[1]))
        serving.join()
        kept[0].close()
    assert (attempt.problem, attempt.response) == (None, "ok")


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_a_receiver_is_not_blamed_for_sockets_that_this_process_lacks(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refused(*_: object) -> None:
        raise OSError(code, "too many open files")

    monkeypatch.setattr(sending, "_socket_if", refused)
    with pytest.raises(NoSocketError):
        send(claimed(receiver.url("/200")))


def test_proxies_of_the_environment_are_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert result(receiver.url("/200")).problem is None


def test_keys_are_rotated(receiver: Receiver) -> None:
    both = Sealer([SECOND_KEY.encode(), FIRST_KEY.encode()])
    old = SEALER.seal(SECRET)
    renewed = both.renewed(old)
    assert renewed is not None
    assert both.renewed(renewed) is None
    assert Sealer([SECOND_KEY.encode()]).open(renewed) == SECRET
    with pytest.raises(UnreadableSecretError):
        send(claimed(receiver.url("/200")), sealer=Sealer([SECOND_KEY.encode()]))


def test_a_secret_has_256_random_bits() -> None:
    secret = new_secret()
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert new_secret() != secret
