"""Takes secrets out of text before it leaves the site. Pure.

Two ways, both on every line: values that this environment has under a secret's name, wherever they stand; and
what stands behind such a name, an authorization header, or in a URL before its host, whatever it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from entrypoint.base.foreign import from_json

HIDDEN = "***"
_NAME = r"(?:password|passwd|passphrase|secret|token|(?:api|access|private)[-_]?key|credentials?|auth)"
_SECRET_NAME = re.compile(rf"(?i)(?:^|[-_.]){_NAME}$|^{_NAME}$")
SHORTEST = 6
"""Characters of a value below which it is left alone: it would be found in every other word."""
_BEHIND = r"(?![\s\"']|\d+(?:\.\d+)?(?:[\s,;)\]}]|$))[^\s\"',;]{6,}"
"""A value: no number, which is what is counted in tokens."""
_URL = r"(\b[a-z][a-z0-9+.-]*://)[^\s/@\"']+@"
_QUERY = r"([?&](?:x-amz-(?:signature|credential|security-token)|sig|signature|key)=)[^&\s\"']+"
_SCHEME = r"(?:(?:bearer|basic|token|digest|negotiate)\s+)?"
_HEADER = rf"(\bauthorization\b[\"']?\s*[:=]\s*[\"']?{_SCHEME})[^\s\"',]+"
_COOKIE = r"(\bcookie[\"']?\s*[:=]\s*[\"']?)[^\"'\n]+"
# NAME=value, "name": "value", "--name", "value"
_NAMED = rf"((?:[\w.-]*[-_.])?{_NAME}[\"']?(?:\s*[:=]\s*|\s*,\s*(?=[\"']))[\"']?){_BEHIND}"
# The same with blanks in it; --name "value"
_QUOTED = rf"((?:[\w.-]*[-_.])?{_NAME}[\"']?\s*[:=,]?\s*)([\"'])[^\"'\n]{{6,}}\2"
# --name value
_OPTION = rf"(--(?:[\w.-]*[-_.])?{_NAME}\s+){_BEHIND}"
# DB_PASS=value, of which the words alone are no telling names.
_VARIABLE = r"((?-i:\b[A-Z][A-Z0-9_]*_(?:PASS|PWD|PAT|SAS|DSN))=[\"']?)[^\s\"']+"
# curl -u user:password, docker login -p password, kubectl … --from-literal=name=value, program <<< password
_USER = r"(\s(?:-u|--user)[ =][\"']?[^\s:\"']+:)[^\s\"']+"
_LOGIN = r"(\blogin\b[^\n]*?\s-p[ =]*)\S+"
_LITERAL = r"(--from-literal[= ][\"']?[\w.-]+=)[^\s\"']+"
_HERE = r"(<<<\s*[\"']?)[^\s\"']+"
_KUBECONFIG = r"(\b(?:client-key|certificate-authority|client-certificate)-data[\"']?\s*:\s*[\"']?)[\w+/=]+"
_SAID = r"(\bpass(?:word|phrase) is [\"']?)[^\s\"']+"
_PEM = r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)[\s\S]{1,16384}?(-----END [A-Z ]*PRIVATE KEY-----)"
# Tokens that show by themselves what they are.
_TELLING = (
    r"\b(?:(?:hf_|nvapi-|ghp_|gho_|github_pat_|glpat-|sk-|xox[abps]-)[\w-]{8,}|AKIA[0-9A-Z]{16}\b"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{4,})"
)
_RULES = tuple(
    (re.compile(pattern, re.IGNORECASE), instead)
    for pattern, instead in (
        (_PEM, rf"\1{HIDDEN}\2"),
        (_URL, rf"\1{HIDDEN}@"),
        (_QUERY, rf"\1{HIDDEN}"),
        (_HEADER, rf"\1{HIDDEN}"),
        (_COOKIE, rf"\1{HIDDEN}"),
        (r"(\bbearer\s+)[\w.~+/=-]{6,}", rf"\1{HIDDEN}"),
        (_QUOTED, rf"\1\2{HIDDEN}\2"),
        (_NAMED, rf"\1{HIDDEN}"),
        (_OPTION, rf"\1{HIDDEN}"),
        (_VARIABLE, rf"\1{HIDDEN}"),
        (_USER, rf"\1{HIDDEN}"),
        (_LOGIN, rf"\1{HIDDEN}"),
        (_LITERAL, rf"\1{HIDDEN}"),
        (_HERE, rf"\1{HIDDEN}"),
        (_KUBECONFIG, rf"\1{HIDDEN}"),
        (_SAID, rf"\1{HIDDEN}"),
        (_TELLING, HIDDEN),
    )
)


def secrets_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The values of variables with a secret's name, the longest first."""
    found = {v for name, v in environ.items() if _SECRET_NAME.search(name) and len(v) >= SHORTEST}
    return tuple(sorted(found, key=len, reverse=True))


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` without what is or looks like a secret."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    return text


def redact_json(text: str, secrets: Iterable[str]) -> str:
    """The same of JSON, one object or one a line, which stays JSON; what is none is taken as text."""
    known = tuple(secrets)
    try:
        return json.dumps(_redacted(from_json(text), known), indent=2, ensure_ascii=False) + "\n"
    except ValueError:
        return "".join(_line(line, known) for line in text.splitlines(keepends=True))


def _line(line: str, secrets: tuple[str, ...]) -> str:
    try:
        return json.dumps(_redacted(from_json(line), secrets), ensure_ascii=False) + "\n"
    except ValueError:
        return redact(line, secrets)


def _redacted(value: Any, secrets: tuple[str, ...], secret: bool = False) -> Any:
    if isinstance(value, str):
        return HIDDEN if secret and value else redact(value, secrets)
    if isinstance(value, dict):
        return {k: _redacted(v, secrets, _SECRET_NAME.search(str(k)) is not None) for k, v in value.items()}
    if isinstance(value, list):
        # The word after an option of a command line is its value.
        after = [
            False,
            *(isinstance(v, str) and v[:2] == "--" and _SECRET_NAME.search(v) is not None for v in value),
        ]
        return [_redacted(v, secrets, bool(hidden)) for v, hidden in zip(value, after, strict=False)]
    return value
