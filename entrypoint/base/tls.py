"""Whom a connection trusts and what it shows: certificates from files, or as the text that Dynamo takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

PEM = "-----BEGIN"
"""What a certificate has that is no path."""


def context(ca: str | None, tls_dir: str | None = None) -> ssl.SSLContext:
    """What trusts who `ca` vouches for, a file or its text; None: whom the system trusts.

    `tls_dir`: it shows the certificate there. OSError: one of them cannot be read.
    """
    import ssl  # OpenSSL takes 5 MB, and most runners ask nobody over TLS

    text = ca is not None and PEM in ca
    found = ssl.create_default_context(cadata=ca) if text else ssl.create_default_context(cafile=ca)
    if tls_dir is not None:
        found.load_cert_chain(f"{tls_dir}/tls.crt", f"{tls_dir}/tls.key")
    return found
