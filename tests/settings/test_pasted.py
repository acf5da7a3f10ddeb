"""Arguments as people paste them, against bash; and what bash would take wrongly."""

from __future__ import annotations

import subprocess

import pytest

from entrypoint.settings.pasted import words

AS_BASH = [
    "--tp 8 --dp 2",
    "--tp 8 \\\n  --dp 2",
    "--tp 8 \\\n  --dp 2 \\\n",
    "--mem-fraction\\\n-static 0.8",
    "# one worker\n--tp 8 # all GPUs\n--dp 2",
    "--tp 8\n--dp 2\n",
    "--key a#b",
    "--key '# no comment' \"nor # this\"",
    "--key ''#b",
    '--json \'{"a": "b\\\\n # c"}\'',
    "--json '\n{\"a\": 1}\n'",
    '--key "a\\"b # c"',
    "--key \"two\\\nlines\" 'two\\\nlines'",
    "--path a\\ b c",
    "--path \\# x",
    "--path 'a\\' b",
    "# only this",
    "# it's not closed\n--tp 8",
    "--a \\\n\\\n --b",
    "",
]
"""Over many lines, and what looks like a continuation or a comment."""
MENDED = {
    "--tp 8 \\  \n--dp 2": ["--tp", "8", "--dp", "2"],
    "--tp 8 \\\r\n--dp 2\r\n": ["--tp", "8", "--dp", "2"],
    "--tp 8 \\ --dp 2": ["--tp", "8", "--dp", "2"],
    "--tp 8 \\ # eight\n--dp 2": ["--tp", "8", "--dp", "2"],
    "--tp 8 \\": ["--tp", "8"],
}
"""What a shell would read otherwise, and nobody means."""


@pytest.mark.parametrize("text", AS_BASH)
def test_words_are_those_of_bash(text: str) -> None:
    # In an array, lines need no continuation.
    script = f"given=({text}\n)\nprintf '%s\\0' start \"${{given[@]}}\""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[1:-1] == words(text)


@pytest.mark.parametrize("text", MENDED)
def test_what_was_pasted_badly_is_read_as_it_was_meant(text: str) -> None:
    assert words(text) == MENDED[text]


@pytest.mark.parametrize("text", ["--a 'b", '--a "b \\"', "--a b'"])
def test_an_open_quote_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="quotation"):
        words(text)
