"""The words of arguments as people paste them: several lines, with continuations and comments.

`shlex` alone keeps the newline of a continuation as a character of the next word, and ends a word at any `#`.
"""

from __future__ import annotations

import shlex


def words(text: str) -> list[str]:
    """The words of `text`, as a shell splits it; ValueError when a quote is not closed.

    A backslash at a line's end, also with blanks behind it, continues the line, and one between two words is
    nothing; a `#` at a word's beginning starts a comment, to the end of the line.
    """
    return shlex.split("".join(_plain(text)))


def _plain(text: str) -> list[str]:
    """`text` without continuations and comments."""
    kept: list[str] = []
    quote, at, fresh = "", 0, True  # fresh: a word may begin here
    while at < len(text):
        one, end = text[at], at + 1
        if one == "\\" and quote != "'":
            one, end = text[at : at + 2], at + 2
            if behind := _continued(text, at, bool(quote), fresh):
                one, end = " " if fresh else "", behind
        elif one == quote:
            quote = ""
        elif one in "'\"" and not quote:
            quote = one
        elif one == "#" and fresh:
            one, end = "", (text.find("\n", at) + 1 or len(text) + 1) - 1
        kept.append(one)
        fresh = not quote and (one.isspace() or (not one and fresh))
        at = end
    return kept


def _continued(text: str, at: int, quoted: bool, fresh: bool) -> int:
    """Where the text goes on behind a continuation whose backslash is at `at`; 0: it is none."""
    end = at + 1
    while end < len(text) and text[end] in " \t\r" and not quoted:
        end += 1
    if text[end : end + 1] == "\n":
        return end + 1
    # `--a 1 \ --b` was several lines once; at the very end there is nothing to go on with.
    return end if not quoted and (end == len(text) or (fresh and end > at + 1)) else 0
