"""The certificates of GLM47_ETCD_TLS_DIR and GLM47_NATS_TLS_DIR.

They have the names that a Kubernetes Secret of kind tls has.
"""

from __future__ import annotations

from pathlib import Path

from entrypoint.node.facts import TlsFacts
from entrypoint.settings.files import Unreadable, read_text

AUTHORITY, CERTIFICATE, KEY = "ca.crt", "tls.crt", "tls.key"
FIRST_LINES = {AUTHORITY: ("CERTIFICATE",), CERTIFICATE: ("CERTIFICATE",), KEY: ("PRIVATE KEY",)}
"""What each of them begins with."""


def read(directory: str) -> TlsFacts:
    """What `directory` holds; never raises."""
    texts = []
    for name, kinds in FIRST_LINES.items():
        path = Path(directory, name)
        try:
            text = read_text(path)
        except Unreadable as error:
            return TlsFacts(error=f"{path}: {error}")
        if not any(f"{kind}-----" in text for kind in kinds):
            return TlsFacts(error=f"{path}: it holds no {kinds[0].lower()} in PEM: put one there")
        texts.append(text)
    return TlsFacts(*texts)
