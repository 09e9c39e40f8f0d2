"""The registry client against registries that misbehave: every fault has its message, and no secret leaves its host."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from airlift import digest as digests
from airlift.digest import Digest
from airlift.errors import AirliftError, DeliveryError, FetchError, IntegrityError
from airlift.transport.credentials import Credentials
from airlift.transport.http import HttpClient, HttpSettings, HttpStatusError
from airlift.transport.registry import RegistryClient
from tests.support.folders import SharedFolder
from tests.support.images import Box
from tests.support.registry import (
    Fault,
    Front,
    FrontHandler,
    Registry,
    cut,
    lie,
    redirect,
    refuse,
    running_front,
    running_registry,
    stall,
)
from tests.support.sources import Taken

LOGIN = Credentials("alice", "s3cret")
DATA = bytes(range(256)) * 12_000


@dataclass
class Waits:
    """Takes the client's pauses instead of sleeping."""

    taken: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


@pytest.fixture(scope="module")
def behind(shared_folder: SharedFolder) -> Iterator[Registry]:
    root = shared_folder("behind")
    with running_registry(root / "registry") as registry:
        box = Box(root / "box")
        box.image("1", layers=[DATA], compress=False)
        box.push(registry, "library/app")
        yield registry


@pytest.fixture
def front(behind: Registry) -> Iterator[Front]:
    with running_front(behind) as running:
        yield running


def client_of(
    front: Front, waits: Waits | None = None, login: Credentials | None = None, **settings: float
) -> RegistryClient:
    http = HttpClient(HttpSettings(**settings), sleep=waits or Waits())  # type: ignore[arg-type]
    return RegistryClient(front.host, http=http, credentials=login, plain_http=True)


def layer(client: RegistryClient) -> tuple[Digest, int]:
    found = client.manifest("library/app", "1").layers[0]
    return found.digest, found.size


def fetch(client: RegistryClient, digest: Digest, size: int) -> bytes:
    memory = Taken()
    client.blob("library/app", digest, size, memory)
    return bytes(memory.data)


def test_a_cut_blob_is_asked_for_from_where_it_stopped(front: Front) -> None:
    client = client_of(front)
    digest, size = layer(client)
    front.faults += [cut(0.25, match="/blobs/", times=1)]
    assert fetch(client, digest, size) == DATA
    ranges = [item.range for item in front.asked if "/blobs/" in item.path]
    assert ranges == [None, f"bytes={size // 4}-"]


def test_a_server_without_ranges_sends_all_again_and_no_byte_is_taken_twice(front: Front) -> None:
    client = client_of(front)
    digest, size = layer(client)
    front.faults += [cut(0.5, match="/blobs/", times=1), lie(lambda _: DATA, match="/blobs/", times=1)]
    # The second answer is 206 by status; make it an honest 200.
    front.faults[1] = Fault(lambda handler: handler.answer(200, DATA), match="/blobs/", times=1)
    assert fetch(client, digest, size) == DATA


@pytest.mark.parametrize("value", ["bytes 5-9/10", "", "bytes 0-99/100"])
def test_a_range_that_was_not_asked_for_is_refused(front: Front, value: str) -> None:
    client = client_of(front)
    digest, size = layer(client)
    wrong = Fault(lambda handler: handler.answer(206, b"x" * 100, {"Content-Range": value}), match="/blobs/", times=1)
    front.faults += [cut(0.5, match="/blobs/", times=1), wrong]
    with pytest.raises(FetchError, match=f"asked for bytes from {size // 2}, got"):
        fetch(client, digest, size)


def test_content_of_another_size_is_refused_before_it_is_taken(front: Front) -> None:
    client = client_of(front)
    digest, size = layer(client)
    front.faults.append(Fault(lambda handler: handler.answer(200, b"x" * 10), match="/blobs/"))
    memory = Taken()
    with pytest.raises(IntegrityError, match=rf"@{digest}: .*expected {size} bytes, got 10 bytes"):
        client.blob("library/app", digest, size, memory)
    assert memory.written == 0


def test_more_content_than_announced_is_refused(front: Front) -> None:
    client = client_of(front)
    digest, size = layer(client)

    def endless(handler: FrontHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        except OSError:
            handler.close_connection = True

    front.faults.append(Fault(endless, match="/blobs/"))
    with pytest.raises(IntegrityError, match=f"expected at most {size} bytes, got more"):
        fetch(client, digest, size)


def test_an_endless_manifest_is_refused(front: Front) -> None:
    front.faults.append(Fault(lambda handler: handler.answer(200, b" " * (5 * 1024 * 1024)), match="/manifests/"))
    with pytest.raises(IntegrityError, match="expected at most 4194304 bytes, got more"):
        client_of(front).manifest("library/app", "1")


def test_a_stalled_transfer_is_resumed_and_an_endless_stall_is_an_error(front: Front) -> None:
    # Long enough for what is not stalled on a busy machine.
    client = client_of(front, timeout_s=2, retries=1)
    digest, size = layer(client)
    over = threading.Event()
    front.faults.append(stall(over, match="/blobs/", times=1))
    assert fetch(client, digest, size) == DATA
    front.faults[:] = [stall(over, share=0, match="/blobs/")]
    with pytest.raises(FetchError, match=r"nothing came for 2 s after 0 bytes") as caught:
        fetch(client, digest, size)
    assert caught.value.temporary
    over.set()


def test_a_trickle_counts_as_stalled(front: Front) -> None:
    def trickle(handler: FrontHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        try:
            for _ in range(80):
                handler.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            pass
        handler.close_connection = True

    client = client_of(front, timeout_s=1, retries=0)
    digest, size = layer(client)
    front.faults.append(Fault(trickle, match="/blobs/"))
    with pytest.raises(FetchError, match=r"stalled, \d+ bytes in"):
        fetch(client, digest, size)


def test_a_manifest_with_another_digest_is_refused(front: Front) -> None:
    client = client_of(front)
    digest = client.manifest("library/app", "1").descriptor.digest
    front.faults.append(lie(lambda data: data + b" ", match="/manifests/"))
    for reference in ("1", digest):
        with pytest.raises(IntegrityError, match=f"expected {digest}, got sha256:"):
            client.manifest("library/app", reference)


@pytest.mark.parametrize("value", ["3", "Wed, 21 Oct 2026 07:28:03 GMT"])
def test_retry_after_is_waited_for(front: Front, value: str) -> None:
    headers = {"Retry-After": value, "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}

    def busy(handler: FrontHandler) -> None:
        handler.send_response_only(429)
        for name, text in {**headers, "Content-Length": "0"}.items():
            handler.send_header(name, text)
        handler.end_headers()

    waits = Waits()
    front.faults += [Fault(busy, match="/manifests/", times=2), refuse(503, match="/manifests/", times=1)]
    client_of(front, waits).manifest("library/app", "1")
    assert waits.taken == [3, 3, 2]


def test_a_wait_of_hours_is_said_instead(front: Front) -> None:
    front.faults.append(refuse(429, b'{"errors":[{"code":"TOOMANYREQUESTS"}]}', {"Retry-After": "21600"}))
    waits = Waits()
    with pytest.raises(HttpStatusError, match="429 Too Many Requests: TOOMANYREQUESTS") as caught:
        client_of(front, waits).manifest("library/app", "1")
    assert waits.taken == []
    assert caught.value.hint == "the server asks to wait 21600 seconds; run the same command again after that"
    assert caught.value.temporary


def test_a_server_that_stays_down_is_given_up(front: Front) -> None:
    front.faults.append(refuse(503))
    waits = Waits()
    with pytest.raises(HttpStatusError, match="answered 503 Service Unavailable") as caught:
        client_of(front, waits).manifest("library/app", "1")
    assert waits.taken == [0.5, 1, 2, 4, 8]
    assert caught.value.temporary


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_said_once_with_the_full_reference(front: Front, status: int) -> None:
    front.faults.append(refuse(status, b'{"errors":[{"code":"X","message":"why not"}]}'))
    with pytest.raises(HttpStatusError, match=rf"^{front.host}/library/app:1: GET .* answered {status} .*: X why not$"):
        client_of(front).manifest("library/app", "1")
    assert len(front.asked) == 1


def test_an_endless_401_ends_soon(front: Front) -> None:
    front.tokens = {}
    front.token_uses = 0
    with pytest.raises(
        HttpStatusError, match="answered 401 Unauthorized: UNAUTHORIZED authentication required"
    ) as caught:
        client_of(front, login=LOGIN).manifest("library/app", "1")
    assert len(front.asked) < 20
    assert "docker login" in (caught.value.hint or "")


def test_a_dying_token_costs_one_token_request_a_401_and_no_byte_twice(front: Front) -> None:
    front.tokens = {}
    front.token_uses = 2
    client = client_of(front)
    digest, size = layer(client)
    for _ in range(4):
        assert fetch(client, digest, size) == DATA
    refused = len(front.asked) - len(front.token_requests) - 5
    assert len(front.token_requests) == refused == 3
    assert [item.range for item in front.asked if "/blobs/" in item.path and item.range] == []


def test_transfers_side_by_side_share_a_new_token(front: Front) -> None:
    front.tokens = {}
    client = client_of(front)
    digest, size = layer(client)
    with front.lock:
        front.tokens = {}
    front.token_requests.clear()
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: fetch(client, digest, size), range(6)))
    assert all(result == DATA for result in results)
    assert len(front.token_requests) == 1


def test_a_token_is_asked_for_with_the_scope_and_the_login(front: Front) -> None:
    front.tokens = {}
    client_of(front, login=LOGIN).manifest("library/app", "1")
    (request,) = front.token_requests
    assert request == {"service": ["front"], "scope": ["repository:library/app:pull"], "account": ["alice"]}
    token = next(item for item in front.asked if item.path.startswith("/token"))
    assert token.authorization == "Basic YWxpY2U6czNjcmV0"


def test_an_identity_token_goes_by_post(front: Front) -> None:
    front.tokens = {}
    client_of(front, login=Credentials("", "", "refresh-me")).manifest("library/app", "1")
    (request,) = front.token_requests
    assert request["method"] == ["POST"]
    assert request["grant_type"] == ["refresh_token"]
    assert request["refresh_token"] == ["refresh-me"]
    assert request["scope"] == ["repository:library/app:pull"]


def test_a_service_without_post_is_asked_by_get(front: Front) -> None:
    front.tokens = {}
    original = FrontHandler._token

    def no_post(handler: FrontHandler) -> None:
        if handler.command == "POST":
            handler.body()
            handler.answer(404)
        else:
            original(handler)

    FrontHandler._token = no_post  # type: ignore[method-assign]
    try:
        client_of(front, login=Credentials("me", "", "refresh-me")).manifest("library/app", "1")
    finally:
        FrontHandler._token = original  # type: ignore[method-assign]
    assert [str(item).split("?")[0] for item in front.asked] == [
        "GET /v2/library/app/manifests/1",
        "POST /token",
        "GET /token",
        "GET /v2/library/app/manifests/1",
    ]


def test_a_refused_login_is_said(front: Front) -> None:
    front.tokens = {}
    front.token_status = 401
    with pytest.raises(
        FetchError, match=r"login: .* 401 Unauthorized: incorrect username or password \(the login is refused\)"
    ):
        client_of(front, login=LOGIN).manifest("library/app", "1")


@pytest.mark.parametrize(
    ("realm", "reason"),
    [
        ("http://evil.example.com/token", "is plain http"),
        ("https://192.168.3.4/token", "is an address inside a network"),
        ("https://user:pass@auth.example.com/token", "carries credentials"),
        ("gopher://auth.example.com/token", "is no URL"),
    ],
)
def test_a_token_service_that_is_not_to_be_trusted_gets_nothing(front: Front, realm: str, reason: str) -> None:
    front.tokens = {}
    front.faults.append(Fault(lambda handler: handler.challenge(realm)))
    with pytest.raises(FetchError, match=reason) as caught:
        client_of(front, login=LOGIN).manifest("library/app", "1")
    assert front.token_requests == []
    assert ("the address that it tells of itself" in (caught.value.hint or "")) is (reason != "carries credentials")


def test_a_token_that_is_none_is_refused(front: Front) -> None:
    front.tokens = {}
    front.token_answer = {"token": "two words"}
    with pytest.raises(FetchError, match="the token service's answer holds no token"):
        client_of(front).manifest("library/app", "1")


@pytest.mark.parametrize("scheme", ["token", "basic"])
def test_a_redirect_takes_no_authorization_to_another_host(front: Front, behind: Registry, scheme: str) -> None:
    with running_front(behind, host="localhost") as storage:
        if scheme == "token":
            front.tokens = {}
        else:

            def ask_for_basic(handler: FrontHandler) -> bool:
                if handler.headers.get("Authorization") is not None:
                    return False
                handler.answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
                return True

            front.faults.append(Fault(ask_for_basic))
        client = client_of(front, login=LOGIN)
        digest, size = layer(client)
        front.faults.append(redirect(storage.url, match="/blobs/"))
        assert fetch(client, digest, size) == DATA
        assert [item.authorization for item in storage.asked] == [None]
        assert all(item.authorization for item in front.asked if "/blobs/" in item.path and scheme == "basic")


def test_a_cut_behind_a_redirect_is_resumed_from_the_registry(front: Front, behind: Registry) -> None:
    with running_front(behind, host="localhost") as storage:
        client = client_of(front)
        digest, size = layer(client)
        front.faults.append(redirect(storage.url, match="/blobs/"))
        storage.faults.append(cut(0.5, match="/blobs/", times=1))
        assert fetch(client, digest, size) == DATA
        assert [item.range for item in front.asked if "/blobs/" in item.path] == [None, f"bytes={size // 2}-"]


def test_a_redirect_loop_is_refused_at_once(front: Front) -> None:
    front.faults.append(redirect(front.url))
    waits = Waits()
    with pytest.raises(FetchError, match="more than 8 redirects"):
        client_of(front, waits).manifest("library/app", "1")
    assert waits.taken == []
    assert len(front.asked) == 8


def test_no_cookie_is_kept(front: Front) -> None:
    def with_cookie(handler: FrontHandler) -> None:
        status, headers, data = handler.ask_behind()
        handler.answer(status, data, {**headers, "Set-Cookie": "sid=1; Path=/"})

    front.faults.append(Fault(with_cookie))
    client = client_of(front)
    layer(client)
    layer(client)
    assert [item.cookie for item in front.asked] == [None, None]


def test_plain_http_to_another_machine_is_refused() -> None:
    http = HttpClient(HttpSettings())
    with pytest.raises(FetchError, match="is plain http to another machine"):
        http.get_bytes("http://192.0.2.1/", limit=10)


def test_all_pages_of_the_tags_are_read(front: Front) -> None:
    pages = {"1000": (["a", "b"], '</v2/library/app/tags/list?n=2&last=b>; rel="next"'), "2": (["c"], None)}

    def tags(handler: FrontHandler) -> None:
        names, link = pages[handler.path.partition("?n=")[2].partition("&")[0]]
        body = ('{"name":"x","tags":["' + '","'.join(names) + '"]}').encode()
        handler.answer(200, body, {"Link": link} if link else {})

    front.faults.append(Fault(tags, match="/tags/"))
    assert client_of(front).tags("library/app") == ("a", "b", "c")


def test_a_list_of_tags_that_turns_in_circles_ends(front: Front) -> None:
    def tags(handler: FrontHandler) -> None:
        number = len(front.asked) % 2
        body = b'{"tags":["a"]}'
        handler.answer(200, body, {"Link": f'</v2/library/app/tags/list?last={number}>; rel="next"'})

    front.faults.append(Fault(tags, match="/tags/"))
    with pytest.raises(FetchError, match="turn in circles"):
        client_of(front).tags("library/app")


def test_a_list_of_referrers_that_never_ends_is_refused(front: Front) -> None:
    def page(handler: FrontHandler) -> None:
        number = len(front.asked)
        entry = '{"mediaType":"a/b","digest":"sha256:%064x","size":1}'
        entries = ",".join(entry % (number << 32 | place) for place in range(30_000))
        body = f'{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{entries}]}}'
        handler.answer(200, body.encode(), {"Link": f'</v2/library/app/referrers/x?n={number}>; rel="next"'})

    front.faults.append(Fault(page, match="/referrers/"))
    with pytest.raises(IntegrityError, match=r"^referrers of .*: expected at most 200000 of them, got more$"):
        client_of(front).referrers("library/app", digests.of(b"subject"))
    assert len(front.asked) < 10


def test_a_place_that_is_no_url_is_an_error_of_ours(front: Front) -> None:
    front.faults.append(
        Fault(lambda handler: handler.answer(200, b'{"tags":["a"]}', {"Link": "<http://[x>; rel=next"}), match="/tags/")
    )
    with pytest.raises(FetchError, match=r"/tags/list names a place that is no URL$"):
        client_of(front).tags("library/app")
    front.faults.append(
        Fault(lambda handler: handler.answer(202, b"", {"Location": "http://[x"}), match="/uploads/", method="POST")
    )
    with pytest.raises(DeliveryError, match=r"/blobs/uploads/ names a place that is no URL$"):
        client_of(front).push_blob("library/app", digests.of(b"blob"), 4, lambda: [b"blob"])


def test_referrers_come_by_api_or_by_tag(front: Front) -> None:
    subject = digests.of(b"subject")
    index = (
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":'
        b'[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":3,"artifactType":"x/y"}]}'
    ) % digests.of(b"abc").encode()
    front.faults.append(Fault(lambda handler: handler.answer(200, index), match="/referrers/"))
    (found,) = client_of(front).referrers("library/app", subject)
    assert (found.digest, found.artifact_type) == (digests.of(b"abc"), "x/y")
    front.faults[:] = [Fault(lambda handler: handler.answer(200, index), match=f"/manifests/sha256-{subject[7:]}")]
    assert [item.digest for item in client_of(front).referrers("library/app", subject)] == [digests.of(b"abc")]
    front.faults[:] = []
    assert client_of(front).referrers("library/app", subject) == ()


def test_a_registry_on_this_machine_is_asked_which_protocol_it_speaks(tmp_path: Path, behind: Registry) -> None:
    plain = RegistryClient(behind.host, http=HttpClient(HttpSettings()))
    assert plain.base == f"http://{behind.host}"
    with running_registry(tmp_path / "tls", secure=True) as secure:
        client = RegistryClient(secure.host, http=HttpClient(HttpSettings(ca_bundle=secure.ca)), credentials=LOGIN)
        assert client.base == f"https://{secure.host}"
        client.ping()


def test_an_unknown_authority_is_said_with_the_remedy(tmp_path: Path) -> None:
    with running_registry(tmp_path / "tls", secure=True) as secure:
        client = RegistryClient(secure.host, http=HttpClient(HttpSettings()), credentials=LOGIN)
        with pytest.raises(FetchError, match="the certificate is not trusted: unable to get local issuer") as caught:
            client.ping()
        assert not caught.value.temporary
        certs = tmp_path / "certs.d" / secure.host
        certs.mkdir(parents=True)
        assert secure.ca is not None
        (certs / "ca.crt").write_bytes(secure.ca.read_bytes())
        settings = HttpSettings(certs_dir=tmp_path / "certs.d")
        RegistryClient(secure.host, http=HttpClient(settings), credentials=LOGIN).ping()
        with pytest.raises(HttpStatusError, match="answered 401"):
            RegistryClient(secure.host, http=HttpClient(settings), credentials=Credentials("alice", "wrong")).ping()


def test_all_certificates_of_dockers_directory_count_beside_the_bundle(tmp_path: Path) -> None:
    with (
        running_registry(tmp_path / "one", secure=True) as secure,
        running_registry(tmp_path / "two", secure=True) as other,
    ):
        assert secure.ca is not None
        assert other.ca is not None
        certs = tmp_path / "certs.d" / secure.host
        certs.mkdir(parents=True)
        (certs / "a.crt").write_bytes(other.ca.read_bytes())
        settings = HttpSettings(certs_dir=tmp_path / "certs.d", ca_bundle=secure.ca)
        RegistryClient(secure.host, http=HttpClient(settings), credentials=LOGIN).ping()
        (certs / "b.crt").write_bytes(secure.ca.read_bytes())
        settings = HttpSettings(certs_dir=tmp_path / "certs.d")
        http = HttpClient(settings)
        RegistryClient(secure.host, http=http, credentials=LOGIN).ping()
        with pytest.raises(FetchError, match="the certificate is not trusted"):
            # What is one server's is no other's.
            RegistryClient(other.host, http=http, credentials=LOGIN).ping()
        (certs / "c.crt").write_bytes(b"no certificate")
        with pytest.raises(FetchError, match=r"c\.crt is not a certificate that can be used"):
            RegistryClient(secure.host, http=HttpClient(settings), credentials=LOGIN).ping()


def test_nobody_there_is_said_in_short(front: Front) -> None:
    http = HttpClient(HttpSettings(retries=0))
    client = RegistryClient("127.0.0.1:1", http=http, plain_http=True)
    with pytest.raises(FetchError, match=r"GET http://127\.0\.0\.1:1/v2/: connection refused$"):
        client.ping()
    assert threading.active_count() < 50


def test_every_fault_is_an_error_of_ours(front: Front) -> None:
    answers = [b"", b"{", b"[]", b'{"schemaVersion":1}', b"\xff\xfe", b'{"schemaVersion":2,"manifests":1}']
    for body in answers:
        front.faults[:] = [Fault(lambda handler, body=body: handler.answer(200, body), match="/manifests/")]
        with pytest.raises(AirliftError):
            client_of(front).manifest("library/app", "1")
