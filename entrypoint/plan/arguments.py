"""Command lines as options: the planned ones, and a person's that override them.

Rules for the extra arguments (``GLM47_EXTRA_ARGS`` and its kin), which are split like a shell does:

- ``--flag value``, ``--flag=value`` and ``--flag a b`` replace the planned option of that name or of an alias
  (``--tp``, ``--tp-size`` and ``--tensor-parallel-size`` are one option).
- ``--no-flag`` removes a planned option that takes no value.
- Anything else is passed on, after the planned ones.

Lines may be continued and commented as in a pasted command (`settings.pasted`). What the plan alone decides
is refused by name (`roles.reserved`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from entrypoint.settings import pasted

ALIASES: Mapping[str, str] = {
    "--model": "--model-path",
    "--tp": "--tp-size",
    "--tensor-parallel-size": "--tp-size",
    "--dp": "--dp-size",
    "--data-parallel-size": "--dp-size",
    "--ep": "--ep-size",
    "--expert-parallel-size": "--ep-size",
    "--pipeline-parallel-size": "--pp-size",
    "--nccl-init-addr": "--dist-init-addr",
    "--attention-data-parallel-size": "--attn-dp-size",
    "--decode-context-parallel-size": "--dcp-size",
    "--attention-context-parallel-size": "--attn-cp-size",
}
"""SGLang's other spellings, abbreviations that argparse accepts included."""


NO = "--no-"
DASHES = tuple("\u2010\u2011\u2012\u2013\u2014\u2015\u2212")
"""What word processors and web pages make of a hyphen: argparse takes such an option for a value."""


class ArgumentsError(ValueError):
    """The extra arguments cannot be read; the text says why and what to do."""


def canonical(flag: str) -> str:
    """The one name of a flag that has several."""
    return ALIASES.get(flag, flag)


@dataclass(frozen=True)
class Option:
    """One option with its values; none for a switch."""

    flag: str
    values: tuple[str, ...] = ()
    source: str = ""
    """The setting it came from; empty for a planned one."""

    @property
    def canonical(self) -> str:
        """The flag's one name."""
        return canonical(self.flag)


@dataclass(frozen=True)
class Options:
    """An ordered command line without repeats of a planned option."""

    items: tuple[Option, ...] = ()

    def get(self, flag: str) -> Option | None:
        """The last option of that name; None if there is none."""
        return next((o for o in reversed(self.items) if o.canonical == flag), None)

    def value(self, flag: str) -> str | None:
        """The single value of `flag`; None when it is absent or a switch."""
        option = self.get(flag)
        return option.values[0] if option is not None and option.values else None

    def argv(self) -> tuple[str, ...]:
        """As the process gets it."""
        return tuple(word for option in self.items for word in (option.flag, *option.values))

    def settings(self, planned: Mapping[str, str]) -> dict[str, str]:
        """By flag, the setting that it came from; those of `planned` options are given."""
        named = {o.flag: o.source or planned.get(o.flag, "") for o in self.items}
        return {flag: setting for flag, setting in named.items() if setting}

    def override(self, extra: Iterable[Option]) -> Options:
        """These options with `extra` winning; raises ArgumentsError."""
        extra = tuple(extra)
        planned = {o.canonical: o for o in self.items}
        removed = {o.canonical for o in extra}
        passed = []
        for option in extra:
            positive = "--" + option.flag.removeprefix(NO)
            target = planned.get(positive) if option.flag.startswith(NO) else None
            if target is None:
                passed.append(option)
            elif target.values:
                raise ArgumentsError(
                    f"cannot use {option.source}: {option.flag}: {positive} needs a value: give one"
                )
            else:
                removed.add(positive)
        return Options((*(o for o in self.items if o.canonical not in removed), *passed))


def planned(*words: str | tuple[str, str]) -> Options:
    """Options from switches (`str`) and (flag, value) pairs."""
    return Options(tuple(Option(w) if isinstance(w, str) else Option(w[0], (w[1],)) for w in words))


def parse(text: str, source: str) -> tuple[Option, ...]:
    """The options in `text`, which came from the setting `source`; raises ArgumentsError."""
    try:
        words = pasted.words(text)
    except ValueError:
        raise ArgumentsError(
            f"cannot read {source}: {text}: a quote is not closed: close it or escape it with \\"
        ) from None
    found: list[Option] = []
    for word in words:
        if word[:1] in DASHES:
            raise ArgumentsError(
                f"cannot read {source}: {word}: its dash is a typographic one: write - or --"
            )
        if is_flag(word):
            flag, equals, value = word.partition("=")
            found.append(Option(flag, (value,) if equals else (), source))
        elif found:
            last = found.pop()
            found.append(Option(last.flag, (*last.values, word), source))
        else:
            raise ArgumentsError(
                f"cannot read {source}: {word}: it belongs to no option: begin with one (--name value), and "
                "leave the command itself out"
            )
    return tuple(found)


def is_flag(word: str) -> bool:
    """Whether argparse takes `word` for an option: not a number below zero."""
    return len(word) > 1 and word[0] == "-" and not (word[1].isdigit() or word[1] == ".")
