"""The stand-in answers as a real Harbor was recorded to answer: status, headers and body of every exchange of the record.

Dates, numbers, secrets, tokens, sizes of manifests and upload sessions differ from run to run and count for nothing;
digests are compared by which is the same as which.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from airlift import oci
from airlift.digest import of as digest_of
from airlift.transport.urls import basic
from tests.support.folders import SharedFolder
from tests.support.harbor import Account, Harbor, running_harbor
from tests.support.harbor_record import BARE, Contents, Exchange, Section, sections
from tests.support.registry import running_registry

COMPARED = (
    "Content-Range",
    "Docker-Content-Digest",
    "Link",
    "Location",
    "Oci-Filters-Applied",
    "Oci-Subject",
    "Range",
    "Www-Authenticate",
    "X-Total-Count",
)
"""Headers that must be absent where the record has none."""

VARYING = [
    "creation_time",
    "current_time",
    "expires_at",
    "id",
    "issued_at",
    "number",
    "project_id",
    "registry_url",
    "repository_id",
    "secret",
    "update_time",
    "user_id",
]
WITHOUT_ACCEPT = ("basic GET manifest", "basic HEAD manifest", "use it", "index, no Accept", "If-None-Match")
"""Requests for a manifest that named no type; the others named all four."""

_VARYING = re.compile(rf'"({"|".join(VARYING)})": ?("[^"]*"|-?\d+)')
_SHORT = re.compile(r"sha256[:-][0-9a-f]{8,63}(?:…|$)|sha256[:-][0-9a-f]{64}")
SECTIONS = sections()


@pytest.fixture(scope="module")
def behind(shared_folder: SharedFolder) -> Iterator[Any]:
    with running_registry(shared_folder("registry"), foreign_urls=True) as registry:
        yield registry


class Replay:
    """One section against a stand-in of its own."""

    def __init__(self, harbor: Harbor) -> None:
        self.harbor = harbor
        self.contents = Contents()
        self.known: dict[str, str] = {}
        self.uploads: dict[str, bytes] = {}
        self.first = self.last = self.token = ""

    # Lines that prepare.

    def prepare(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        words = rest.split()
        getattr(self, f"do_{verb}")(*words)

    def do_project(self, name: str, *facts: str) -> None:
        limit = next((int(fact[5:]) for fact in facts if fact.startswith("hard=")), -1)
        self.harbor.project(name, metadata={"public": str("public" in facts).lower()}, hard=limit)

    def do_user(self, name: str) -> None:
        self.harbor.accounts[name] = Account("Joe12345678", is_robot=False, number=3)

    def do_robot(self, name: str, rights: str = "") -> None:
        more = {"rights": rights.split(",")} if rights else {}
        self.harbor.robot(f"robot${name}", "s3cret", **more).gain(
            *([] if rights else ["project:create"]), namespace="/"
        )

    def do_expire(self, name: str) -> None:
        self.harbor.accounts[name].expires_at = 1

    def do_meta(self, project: str, key: str, value: str) -> None:
        self.harbor.projects[project].metadata[key] = value

    def do_set(self, name: str, value: str) -> None:
        setattr(self.harbor, name, value)

    def do_down(self, what: str) -> None:
        self.harbor.down.add(what)

    def do_up(self) -> None:
        self.harbor.down.clear()

    def do_alias(self, short: str, name: str) -> None:
        self.known[short] = self.contents.digest(name)

    def do_blobof(self, short: str, name: str) -> None:
        body = json.loads(self.contents.manifest(name, {})[0])
        self.known[short] = body["layers"][0]["digest"]

    def do_token(self, who: str, age_s: str, *repositories: str) -> None:
        scopes = "".join(f"&scope=repository:{name}:pull" for name in repositories)
        _, _, data = self.ask("GET", f"/service/token?service=harbor-registry{scopes}", who, {}, b"")
        self.token = json.loads(data)["token"]
        given = self.harbor.tokens_given
        if int(age_s):
            given[self.token] = replace(given[self.token], ends=given[self.token].ends - 1800 + 60 - int(age_s))

    def do_start(self, repository: str) -> None:
        _, headers, _ = self.ask("POST", f"/v2/{repository}/blobs/uploads/", "admin", {}, b"")
        self.took(headers["Location"])
        self.first = self.last

    def do_break(self, method: str, sent: str) -> None:
        """Send a part of 500,000 bytes and hang up."""
        host, _, port = self.harbor.host.partition(":")
        query = "&digest=sha256:" + "0" * 64 if method == "PUT" else ""
        head = {
            "Host": self.harbor.host,
            "Authorization": basic("admin", self.harbor.accounts["admin"].password),
            "Content-Type": "application/octet-stream",
            "Content-Length": "500000",
        }
        lines = [f"{method} {self.last}{query} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        with socket.create_connection((host, int(port)), 10) as link:
            link.sendall("\r\n".join(lines).encode() + b"x" * int(sent))
            link.shutdown(socket.SHUT_WR)
            while link.recv(4096):
                pass

    def do_have(self, repository: str, name: str) -> None:
        for data in self.contents.bound(self.contents.manifest(name, {})[0]):
            self.store(repository, data)

    def do_push(self, place: str, name: str) -> None:
        repository, _, tag = place.partition(":")
        tag = tag.replace("IMAGE", self.contents.digest("image")[7:])
        data, media_type = self.contents.manifest(name, self.known)
        if name.partition(":")[0] not in ("index", "list"):
            self.do_have(repository, name)
        path = f"/v2/{repository}/manifests/{tag}"
        assert self.ask("PUT", path, "admin", {"Content-Type": media_type}, data)[0] == 201

    def do_blob(self, repository: str, what: str) -> None:
        if len(what) < 8:
            self.store(repository, bytes(int(what)))
            return
        size = 13000 if what == "ed3b669d" else 10000
        data = self.contents.blobs.setdefault(self.known.get(what, ""), what.ljust(size, ".").encode())
        self.known[what] = digest_of(data)
        self.contents.blobs[digest_of(data)] = data
        self.store(repository, data)

    def store(self, repository: str, data: bytes) -> None:
        kept = self.first, self.last
        self.do_start(repository)
        query = f"&digest={digest_of(data)}"
        assert self.ask("PUT", self.last + query, "admin", {"Content-Type": "application/octet-stream"}, data)[0] == 201
        self.first, self.last = kept

    # Exchanges.

    def ask(
        self, method: str, path: str, who: str, headers: dict[str, str], data: bytes | None
    ) -> tuple[int, dict[str, str], bytes]:
        link = http.client.HTTPConnection(self.harbor.host, timeout=60)
        sent = {**self.login(who), **headers}
        try:
            link.putrequest(method, path, skip_host="Host" in sent, skip_accept_encoding=True)
            if data or method in ("POST", "PUT", "PATCH"):
                sent["Content-Length"] = str(len(data or b""))
            for name, value in sent.items():
                link.putheader(name, value)
            link.endheaders(data or None)
            answer = link.getresponse()
            return answer.status, {k.title(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            link.close()

    def login(self, who: str) -> dict[str, str]:
        kind, _, name = who.rpartition(":")
        if who == "anon":
            return {}
        if who in ("bearer", "garbage"):
            return {"Authorization": f"Bearer {self.token if who == 'bearer' else 'garbage'}"}
        account = self.harbor.accounts.get(name)
        password = "wrong" if kind == "wrong" or account is None else account.password
        return {"Authorization": basic(name, password)}

    def took(self, location: str) -> None:
        parts = urlsplit(location)
        self.last = f"{parts.path}?{parts.query}"

    def step(self, one: Exchange) -> None:
        match = re.fullmatch(r"(\S+) (\S+) \[([^\]]*)\](.*)", one.request)
        assert match is not None, one.request
        method, path, who, rest = match.groups()
        before = dict(self.known)
        headers, data, media = self.parts_of(one.title, rest.strip(), path, method)
        path = self.path_of(path, data, is_other=rest.endswith("other"))
        status, got, body = self.ask(method, path, who, {**media, **headers}, data)
        self.check(one, status, got, body.decode())
        self.learn(method, path, status, got, data or b"", body)
        if rest.endswith("other"):
            self.known = before

    def parts_of(
        self, title: str, rest: str, path: str, method: str
    ) -> tuple[dict[str, str], bytes | None, dict[str, str]]:
        """Return headers, body and type that the record says were sent."""
        given: str
        head, _, given = rest.removesuffix(" other").partition("body=")
        headers = json.loads(head) if head.strip().startswith("{") else {}
        if short := re.fullmatch(r"sha256:([0-9a-f]{8})…", headers.get("If-None-Match", "")):
            headers["If-None-Match"] = self.known[short[1]]
        if "/manifests/" in path and method in ("GET", "HEAD") and title not in WITHOUT_ACCEPT:
            headers.setdefault("Accept", oci.ACCEPT)
        media = {"Content-Type": "application/octet-stream"} if "OS" in head or "/uploads/UUID" in path else {}
        if given.startswith("@"):
            name = given[1:]
            data, _ = self.contents.manifest(name, self.known)
            if (short := re.search(r"/manifests/sha256:([0-9a-f]{8})…", path)) and not rest.endswith("other"):
                self.known.setdefault(short[1], digest_of(data))
            if name.partition(":")[0] not in BARE and method == "PUT" and "noix" not in name:
                self.do_have(path.removeprefix("/v2/").partition("/manifests/")[0], name)
            return headers, data, media
        if size := re.fullmatch(r"<(\d+) bytes>", given):
            short = re.search(r"digest=sha256(?::|%3A)([0-9a-f]{8})", path)
            whole = self.contents.blobs.get(self.known.get(short[1], ""), b"") if short else b""
            mark = (short[1] if short else "").encode()
            return headers, whole if len(whole) == int(size[1]) else mark.ljust(int(size[1]), b"."), media
        return headers, given.encode() or None, media

    def path_of(self, path: str, data: bytes | None, *, is_other: bool) -> str:
        """Return the path with this run's digests, numbers and upload session."""
        last = next(reversed(self.harbor.projects.values())).number
        path = re.sub(r"reference_id=\d+", f"reference_id={last}", path)
        if "/quotas/" in path:
            number = json.loads(self.ask("GET", f"/api/v2.0/quotas?reference_id={last}", "admin", {}, None)[2])[0]["id"]
            path = re.sub(r"/quotas/\d+", f"/quotas/{number}", path)
        robot = self.harbor.accounts.get("robot$notag")
        path = path.replace("robots/8", f"robots/{robot.number if robot else 8}")
        if "uploads/UUID" in path:
            place = self.first if "_state=first" in path else self.last
            query = path.partition("UUID")[2].replace("?_state=…", "").replace("?_state=first", "")
            path = (place if "_state" in path else place.partition("?")[0]) + query
            content = self.uploads.get(place.partition("?")[0], b"") + (data or b"")
            if (short := re.search(r"digest=sha256(?::|%3A)([0-9a-f]{8})", path)) and not is_other:
                self.known.setdefault(short[1], digest_of(content))
                self.contents.blobs[digest_of(content)] = content
            path = re.sub(r"(digest=sha256%3A)[0-9a-f]{64}", lambda m: m[1] + self.full(path)[7:], path)
            path = re.sub(r"sha512:[0-9a-f]{128}", "sha512:" + hashlib.sha512(content).hexdigest(), path)
        return re.sub(r"sha256([:-])([0-9a-f]{8})…", lambda m: f"sha256{m[1]}{self.find(m[2])[7:]}", path)

    def full(self, path: str) -> str:
        short = re.search(r"digest=sha256%3A([0-9a-f]{8})", path)
        assert short is not None
        return self.known[short[1]]

    def find(self, short: str) -> str:
        return self.known.setdefault(short, "sha256:" + hashlib.sha256(short.encode()).hexdigest())

    def learn(self, method: str, path: str, status: int, got: dict[str, str], data: bytes, body: bytes) -> None:
        location = got.get("Location", "")
        if status in (202, 204) and "/uploads/" in location:
            session = path.partition("?")[0]
            self.took(location)
            if method == "POST":
                self.first = self.last
            elif method == "PATCH":
                self.uploads[session] = self.uploads.get(session, b"") + data
        if path.startswith("/service/token") and status == 200:
            self.token = json.loads(body)["token"]

    # The comparison.

    def check(self, one: Exchange, status: int, got: dict[str, str], body: str) -> None:
        where = f"{one.title}\n> {one.request}\n{body[:500]}"
        assert status == one.status, where
        for name in sorted({*COMPARED, *one.headers} - {"Content-Type", "X-Harbor-Csrf-Token"}):
            wanted, actual = one.headers.get(name), got.get(name)
            if name == "Location" and actual is not None:
                actual = self.shown(re.sub(r"uploads/[^?]+\?_state=.*", "uploads/UUID?_state=…", actual))
                wanted = None if wanted is None else self.shown(wanted)
            pair = self.alike(wanted or "", (actual or "").replace(self.harbor.url, ""))
            assert (wanted is None) == (actual is None), f"{name}: {actual}\n{where}"
            assert pair[0] == pair[1], f"{name}\n{where}"
        kind = got.get("Content-Type", "application/json; charset=utf-8")
        wanted = one.headers.get("Content-Type", "application/json; charset=utf-8")
        assert (kind if "boundary" not in kind else wanted) == wanted or got.get("Content-Length") == "0", where
        assert ("X-Harbor-Csrf-Token" in got) == ("X-Harbor-Csrf-Token" in one.headers), where
        assert ("sid=" in got.get("Set-Cookie", "")) == ("<html>" not in body), where
        self.check_body(one.body, body.strip(), where)

    def shown(self, location: str) -> str:
        """Return a place without what differs from run to run."""
        location = location.replace(self.harbor.url, "")
        return re.sub(r"(/api/.*/)\d+$", r"\g<1>N", location)

    def check_body(self, wanted: str, actual: str, where: str) -> None:
        wanted, actual = self.alike(wanted, actual)
        with contextlib.suppress(ValueError):
            want, have = json.loads(wanted), json.loads(actual)
            assert have == want, where
            return
        # Long bodies are cut in the record.
        assert actual.startswith(wanted), f"{where}\nwanted {wanted}"

    def alike(self, wanted: str, actual: str) -> tuple[str, str]:
        """Return both without what differs from run to run, and with one name for one digest."""
        for ours, theirs in zip(_SHORT.findall(wanted), _SHORT.findall(actual), strict=False):
            if len(theirs) == 71:
                self.known.setdefault(ours[7:15], f"sha256:{theirs[7:]}")

        def full(match: re.Match[str]) -> str:
            digits = match[0][7:].rstrip("…")
            return match[0][:7] + self.known.get(digits, f"sha256:{digits}")[7:]

        texts = [_VARYING.sub(r'"\1":0', _SHORT.sub(full, text)) for text in (wanted, actual)]
        texts = [re.sub(r'"size": ?\d+', '"size":0', re.sub(r'("token":").*', r"\1", text)) for text in texts]
        texts = [re.sub(r"(adding|for project) \d+", r"\1 N", text) for text in texts]
        one, two = (text.replace('": ', '":').replace(", ", ",") for text in texts)
        return one, two


@pytest.mark.parametrize("section", SECTIONS, ids=[section.title for section in SECTIONS])
def test_the_stand_in_answers_as_a_real_harbor_was_recorded_to_answer(section: Section, behind: Any) -> None:
    with running_harbor(behind) as harbor:
        del harbor.accounts["robot$import"]
        replay = Replay(harbor)
        for step in section.steps:
            if isinstance(step, str):
                replay.prepare(step)
            else:
                replay.step(step)


def test_the_record_is_whole() -> None:
    assert sum(isinstance(step, Exchange) for section in SECTIONS for step in section.steps) > 500


def test_the_record_names_no_place_of_the_machine_it_was_made_on() -> None:
    text = Path(sections.__code__.co_filename).with_name("harbor_record.txt").read_text(encoding="utf-8")
    assert not re.search(r"/(work|tmp|root)/", text)
