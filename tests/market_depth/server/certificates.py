"""Certificates for tests, made when they are needed."""

from __future__ import annotations

import ssl
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import trustme

from market_depth.server.tls import make_tls_context

if TYPE_CHECKING:
    from pathlib import Path

HOST = "localhost"


class Tls(NamedTuple):
    """Both sides' contexts for a server of this name."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    host: str


@cache
def authority() -> trustme.CA:
    """The issuer that clients trust."""
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


def write_certificate(folder: Path, *further_names: str) -> tuple[Path, Path]:
    """A new certificate and its key. Returns: their files."""
    issued = authority().issue_cert(HOST, *further_names, key_type=trustme.KeyType.ECDSA)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return certificate, key


def make_tls(
    folder: Path, *further_names: str, version: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
) -> Tls:
    """A server with a new certificate, and a client that trusts it and speaks this version at most."""
    client = ssl.create_default_context()
    authority().configure_trust(client)
    client.maximum_version = version
    return Tls(make_tls_context(*write_certificate(folder, *further_names)), client, HOST)
