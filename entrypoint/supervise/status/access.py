"""Who may look: the token that GLM47_STATUS_TOKEN asks for, shown in a header or in a browser's cookie."""

from __future__ import annotations

import hmac
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie

COOKIE = "glm47_status"
FORM = b"""<!doctype html><meta charset=utf-8><meta name=viewport content="width=device-width">
<link rel=icon href="data:,"><title>glm47-runner</title>
<style>:root{color-scheme:light dark}body{font:1rem system-ui;margin:15vh auto;max-width:24rem;padding:1rem}
input,button{font:inherit;padding:.5rem;width:100%;box-sizing:border-box;margin:.3rem 0}</style>
<h1>glm47-runner</h1><form method=post action="/"><input name=user autocomplete=username value=status hidden>
<label>GLM47_STATUS_TOKEN <input name=token type=password autocomplete=current-password autofocus></label>
<button>Look</button></form>"""
"""What a browser without the token is shown."""


def allowed(token: str | None, authorization: str, cookies: str) -> bool:
    """Whether one of two headers shows `token`; None asks for nothing."""
    if token is None:
        return True
    shown = [authorization.removeprefix("Bearer ")] if authorization.startswith("Bearer ") else []
    with suppress(CookieError):
        shown += [found.value for name, found in SimpleCookie(cookies).items() if name == COOKIE]
    return any(same(token, text) for text in shown)


def same(token: str, shown: str) -> bool:
    """Whether `shown` is `token`, in a time that does not tell how much of it is right."""
    return hmac.compare_digest(token.encode(), shown.encode(errors="replace"))


def cookie(token: str) -> str:
    """The value of Set-Cookie that lets this browser look until it is closed; no script can read it."""
    made: SimpleCookie = SimpleCookie()
    made[COOKIE] = token
    made[COOKIE]["path"], made[COOKIE]["samesite"] = "/", "Strict"
    made[COOKIE]["httponly"] = True
    return made[COOKIE].OutputString()
