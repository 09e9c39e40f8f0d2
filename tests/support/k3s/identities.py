"""What the parts of a cluster know each other by: certificates of one authority, a token, and kubeconfigs."""

from __future__ import annotations

import datetime as dt
import ipaddress
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SECOND = "second"
"""Name of the node that may join."""


@dataclass(frozen=True)
class Identities:
    """Where they are.

    Attributes:
        ca: the authority's certificate.
        serving: certificate and key of the API server and of the kubelet.
        admin: certificate and key of the parts themselves, which may do everything.
        accounts: the key of service accounts, and its public half.
        tokens: the API server's file of tokens.
        inside: the kubeconfig of the parts.
        outside: the kubeconfig of those who use the cluster: by the token, at the node's address.
    """

    ca: Path
    serving: tuple[Path, Path]
    admin: tuple[Path, Path]
    accounts: tuple[Path, Path]
    tokens: Path
    inside: Path
    outside: Path


def _name(common: str, organisation: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if organisation:
        parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    return x509.Name(parts)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class _Authority:
    def __init__(self, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        self._key = key or ec.generate_private_key(ec.SECP256R1())
        self._subject = _name("k3s-server-ca")
        self.certificate = self._signed(
            self._subject, self._key, [(x509.BasicConstraints(ca=True, path_length=None), True)]
        )

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, more: Sequence[tuple[x509.ExtensionType, bool]]
    ) -> bytes:
        now = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=2))
        )
        for extension, critical in more:
            made = made.add_extension(extension, critical)
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    @property
    def key(self) -> bytes:
        return _pem(self._key)

    def issue(
        self, folder: Path, name: str, subject: x509.Name, usage: x509.ObjectIdentifier, names: Sequence[str] = ()
    ) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        more: list[tuple[x509.ExtensionType, bool]] = [(x509.ExtendedKeyUsage([usage]), False)]
        if names:
            more.append((x509.SubjectAlternativeName([_alternative(item) for item in names]), False))
        certificate, private = folder / f"{name}.crt", folder / f"{name}.key"
        certificate.write_bytes(self._signed(subject, key, more))
        private.write_bytes(_pem(key))
        return certificate, private


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def make_identities(folder: Path, node: str, names: Sequence[str], inside: str, outside: str) -> Identities:
    """Make all of them anew.

    Args:
        folder: where.
        node: the node's name.
        names: by which the API server and the kubelet are reached.
        inside: the API server's URL for the parts.
        outside: and for those who use the cluster.
    """
    folder.mkdir()
    authority = _Authority()
    ca = folder / "ca.crt"
    ca.write_bytes(authority.certificate)
    (folder / "ca.key").write_bytes(authority.key)
    serving = authority.issue(folder, "serving", _name(node), ExtendedKeyUsageOID.SERVER_AUTH, names)
    who = _name("system:admin", "system:masters")
    admin = authority.issue(folder, "admin", who, ExtendedKeyUsageOID.CLIENT_AUTH)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    accounts = folder / "accounts.key", folder / "accounts.pub"
    accounts[0].write_bytes(_pem(key))
    accounts[1].write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    token, joining, tokens = secrets.token_hex(16), secrets.token_hex(16), folder / "tokens.csv"
    # The API server reads them when it starts: the agent that may come has one, too.
    tokens.write_text(f'{token},admin,admin,"system:masters"\n{joining},system:node:{SECOND},{SECOND},"system:nodes"\n')
    made = Identities(ca, serving, admin, accounts, tokens, folder / "inside.yaml", folder / "k3s.yaml")
    certificate = {"client-certificate": str(admin[0]), "client-key": str(admin[1])}
    _write_kubeconfig(made.inside, inside, ca, certificate)
    _write_kubeconfig(made.outside, outside, ca, {"token": token})
    _write_kubeconfig(folder / "agent.yaml", outside, ca, {"token": joining})
    return made


def _write_kubeconfig(place: Path, server: str, ca: Path, user: Mapping[str, str]) -> None:
    value = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default", "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": "default", "user": dict(user)}],
        "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
        "current-context": "default",
    }
    place.write_text(yaml.safe_dump(value))


def join_identities(server: Path, folder: Path, address: str) -> tuple[Path, tuple[Path, Path], Path]:
    """Return what the node `SECOND` gets from a server: the authority, certificate and key of its kubelet, a kubeconfig.

    Args:
        server: where the server's identities are.
        folder: where the node's are put.
        address: of the node.
    """
    folder.mkdir(exist_ok=True)
    key = serialization.load_pem_private_key((server / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    names = (SECOND, address, "127.0.0.1")
    usage = ExtendedKeyUsageOID.SERVER_AUTH
    serving = _Authority(key).issue(folder, "kubelet", _name(SECOND), usage, names)
    return server / "ca.crt", serving, server / "agent.yaml"
