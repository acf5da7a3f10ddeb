"""What an OpenAI-style answer must look like. Pure: text and data in, an `Answer` or `Unexpected` out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from entrypoint.base.foreign import from_json
from entrypoint.supervise.probes import no_answer
from entrypoint.supervise.probes.no_answer import Said

FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter")


SPECULATED = 8
"""Tokens that an engine which speculates may give beyond those asked for."""


class Unexpected(Exception):
    """An answer that is not what it should be; the text says how, in one line."""


@dataclass(frozen=True)
class Answer:
    """A good answer: what the model said, and a summary of it for the table."""

    text: str
    detail: str
    reasoning: str = ""


def model_names(data: dict[str, Any]) -> list[str]:
    """The model names in an answer of /v1/models. Raises Unexpected when it is not one."""
    entries = data.get("data")
    if not isinstance(entries, list):
        raise Unexpected(f"the list of models has no data array: {excerpt(data)}")
    names = [entry.get("id") if isinstance(entry, dict) else None for entry in entries]
    if not all(isinstance(name, str) and name for name in names):
        raise Unexpected(f"the list of models has an entry without id: {excerpt(data)}")
    return [str(name) for name in names]


def whole(data: dict[str, Any], chat: bool, max_tokens: int) -> Answer:
    """Read an answer that came in one piece. Raises Unexpected for a wrong shape or wrong counts."""
    _refuse_error(data)
    _expect(data, "object", "chat.completion" if chat else "text_completion")
    choice = _only_choice(data)
    if choice.get("finish_reason") not in FINISH_REASONS:
        raise Unexpected(f"finish_reason is {excerpt(choice.get('finish_reason'))}")
    if chat:
        message = choice.get("message")
        if not isinstance(message, dict) or message.get("role") != "assistant":
            raise Unexpected(f"the choice has no message of the assistant: {excerpt(choice)}")
        content, reasoning = _spoken(message)
        calls = bool(message.get("tool_calls"))
    else:
        content, reasoning, calls = _string(choice, "text"), "", False
    tokens, counts = _usage(data.get("usage"), max_tokens)
    said = Said(content, reasoning, choice["finish_reason"], tokens, max_tokens, calls, chat)
    return _answer(said, counts)


def streamed(body: str, chat: bool, max_tokens: int) -> Answer:
    """Read an answer that came as server-sent events. Raises Unexpected for a wrong shape or wrong counts."""
    parts: list[tuple[str, str]] = []
    finish: str | None = None
    usage: Any = None
    done = calls = False
    for payload in events(body):
        if done:
            raise Unexpected("the stream goes on after [DONE]")
        if payload == "[DONE]":
            done = True
            continue
        data = json_object(payload, "an event is not")
        _refuse_error(data)
        _expect(data, "object", "chat.completion.chunk" if chat else "text_completion")
        if data.get("usage") is not None:
            usage = data["usage"]  # some count on with every event: the last one tells
        if data.get("choices") == []:
            continue  # the event that carries the usage
        choice = _only_choice(data)
        text, reason = _delta(choice, chat), choice.get("finish_reason")
        calls = calls or bool((choice.get("delta") or {}).get("tool_calls"))
        if finish is not None and any(text):
            raise Unexpected("the stream has text after its finish_reason")
        if reason is not None:
            if reason not in FINISH_REASONS:
                raise Unexpected(f"finish_reason is {excerpt(reason)}")
            finish = reason
        if any(text):
            parts.append(text)
    if not done:
        raise Unexpected(f"the stream broke off after {len(parts)} pieces of text: no [DONE]")
    if finish is None:
        raise Unexpected("the stream ended without a finish_reason")
    tokens, counts = (None, f"{len(parts)} pieces") if usage is None else _usage(usage, max_tokens)
    if not parts and not calls:
        raise Unexpected("the stream carried no text")
    content, reasoning = ("".join(text) for text in zip(*parts, strict=True)) if parts else ("", "")
    return _answer(Said(content, reasoning, finish, tokens, max_tokens, calls, chat), counts)


def events(body: str) -> list[str]:
    """The data of each server-sent event in `body`. Raises Unexpected when an `event: error` is among them.

    An event that no empty line ends is dropped, as the standard says: it was cut off.
    """
    found: list[str] = []
    data: list[str] = []
    kind = ""
    for line in body.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif not name:
            # An empty line ends an event, a line that starts with a colon is a comment.
            if kind == "error":
                raise Unexpected(f"the stream carries an error: {excerpt(value or ' '.join(data))}")
            if line == "":
                if data:
                    found.append("\n".join(data))
                data, kind = [], ""
        elif name not in ("id", "retry"):
            raise Unexpected(f"not a server-sent event: {excerpt(line)}")
    return found


def json_object(text: str, wrong: str) -> dict[str, Any]:
    """The JSON object that `text` is. Raises Unexpected, with `wrong` before what it should be."""
    try:
        data = from_json(text)
    except ValueError:
        raise Unexpected(f"{wrong} JSON: {excerpt(text)}") from None
    if not isinstance(data, dict):
        raise Unexpected(f"{wrong} a JSON object: {excerpt(text)}")
    return data


def excerpt(value: Any, length: int = 160) -> str:
    """`value` as one short printable line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return (line if len(line) <= length else line[: length - 1] + "…") or "(nothing)"


def _answer(said: Said, counts: str) -> Answer:
    if (why := no_answer.fault(said)) is not None:
        raise Unexpected(f"{why}; it says: {excerpt(said.content or said.reasoning, 60)}")
    both = said.reasoning + said.content
    if not both.strip() and not said.calls:
        raise Unexpected("the answer has no text")
    return Answer(said.content, f"{counts}, {said.finish}: {excerpt(both, 60)}", said.reasoning)


def _refuse_error(data: dict[str, Any]) -> None:
    if data.get("error"):
        raise Unexpected(f"the answer is an error: {excerpt(data['error'])}")


def _expect(data: dict[str, Any], key: str, value: str) -> None:
    if data.get(key) != value:
        raise Unexpected(f"{key} is {excerpt(data.get(key))}, not {value}")


def _only_choice(data: dict[str, Any]) -> dict[str, Any]:
    choices = data.get("choices")
    if not isinstance(choices, list) or not all(isinstance(c, dict) for c in choices):
        raise Unexpected(f"the answer has no choices: {excerpt(data)}")
    if len(choices) != 1:
        raise Unexpected(f"the answer has {len(choices)} choices, not 1")
    choice: dict[str, Any] = choices[0]
    if choice.get("index") != 0:
        raise Unexpected(f"the choice has index {excerpt(choice.get('index'))}, not 0")
    return choice


def _delta(choice: dict[str, Any], chat: bool) -> tuple[str, str]:
    """(content, reasoning) of one event."""
    if not chat:
        return _string(choice, "text", missing_ok=True), ""
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        raise Unexpected(f"the choice has no delta: {excerpt(choice)}")
    return _spoken(delta)


def _spoken(message: dict[str, Any]) -> tuple[str, str]:
    """(content, reasoning): a model that is cut off while it thinks has answered all the same."""
    reasoning = "".join(_string(message, key, missing_ok=True) for key in ("reasoning_content", "reasoning"))
    return _string(message, "content", missing_ok=True), reasoning


def _string(data: dict[str, Any], key: str, *, missing_ok: bool = False) -> str:
    value = data.get(key)
    if isinstance(value, str):
        return value
    if value is None and missing_ok:
        return ""
    raise Unexpected(f"{key} is not a text: {excerpt(data)}")


def _usage(usage: Any, max_tokens: int) -> tuple[int, str]:
    """(completion_tokens, the counts in words)."""
    if not isinstance(usage, dict):
        raise Unexpected("the answer has no usage counts")
    prompt, completion, total = (
        _count(usage, key) for key in ("prompt_tokens", "completion_tokens", "total_tokens")
    )
    if completion == 0:
        raise Unexpected(
            "no tokens came: completion_tokens is 0; with prefill and decode workers see decode's log: "
            "it may not reach prefill's bootstrap server"
        )
    if prompt <= 0 or not 0 < completion <= max_tokens + SPECULATED or total != prompt + completion:
        raise Unexpected(
            f"usage does not add up: prompt_tokens {prompt}, completion_tokens {completion} "
            f"(asked for at most {max_tokens}), total_tokens {total}"
        )
    return completion, f"{prompt} + {completion} tokens"


def _count(usage: dict[str, Any], key: str) -> int:
    value = usage.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Unexpected(f"usage has no whole number as {key}: {excerpt(usage)}")
    return value
