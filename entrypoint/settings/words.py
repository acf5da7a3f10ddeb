"""Words about settings: what a setting takes, which name was meant, how a value is shown.

Shared by the errors of `load` and the tables of `doc`, so that both say the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from entrypoint.settings.schema import LOADER_ONLY, Settings, variable_of

MAX_SHOWN = 120
"""Characters of a value that an error shows."""


@dataclass(frozen=True)
class Kind:
    """What a field takes: its bare type, whether it may be unset, its constraints and its unit."""

    type: Any
    optional: bool
    constraints: tuple[Any, ...]

    def bound(self, name: str) -> Any:
        """The constraint `name` (ge, gt, le, lt), or None."""
        for constraint in self.constraints:
            if (value := getattr(constraint, name, None)) is not None:
                return value
        return None

    @property
    def choices(self) -> tuple[str, ...]:
        """The words a Literal allows; empty for every other type."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    @property
    def secret(self) -> bool:
        """Whether its value must never be shown."""
        return self.type is SecretStr


def kind_of(field: FieldInfo) -> Kind:
    """The `Kind` of a pydantic field, seen through Optional and Annotated."""
    annotation: Any = field.annotation
    constraints = list(field.metadata)
    optional = False
    while True:
        if get_origin(annotation) in (Union, UnionType):
            optional = True
            annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
        elif get_origin(annotation) is Annotated:
            annotation, *extra = get_args(annotation)
            for item in extra:
                constraints += item.metadata if isinstance(item, FieldInfo) else [item]
        else:
            return Kind(annotation, optional, tuple(constraints))


def is_secret(field: str) -> bool:
    """Whether the value of `field` must never be shown."""
    return kind_of(Settings.model_fields[field]).secret


def takes(kind: Kind) -> str:
    """What `kind` takes, as a noun phrase: ``a whole number of at least 1``."""
    if kind.choices:
        return _join(kind.choices)
    if kind.type is bool:
        return "true or false"
    if kind.type in (int, float):
        noun = "a whole number" if kind.type is int else "a number"
        if "seconds" in kind.constraints:
            noun += " of seconds"
        return noun + _range(kind)
    return "text"


def _range(kind: Kind) -> str:
    low, high = kind.bound("ge"), kind.bound("le")
    above, below = kind.bound("gt"), kind.bound("lt")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of at least {low}"
    parts = []
    if above is not None:
        parts.append(f"above {above}")
    if below is not None:
        parts.append(f"below {below}")
    if high is not None:
        parts.append(f"at most {high}")
    return " " + " and ".join(parts) if parts else ""


def _join(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def variables() -> tuple[str, ...]:
    """Every variable of a setting, in the order of the fields, without the _FILE forms."""
    return tuple(variable_of(field) for field in Settings.model_fields)


def file_variables() -> tuple[str, ...]:
    """The ``GLM47_X_FILE`` forms; ROLE has none."""
    return tuple(f"{variable}_FILE" for variable in variables() if variable != "ROLE")


def nearest(name: str) -> str:
    """The real variable most like `name`: one always comes out, however unlike it is.

    Only the part behind the prefix is compared, as the prefix would make every pair look alike.
    The _FILE forms count only for a name that itself looks like one.
    """
    wanted = _stem(name.upper())
    known = [*variables(), *LOADER_ONLY]
    if wanted.endswith(("_FILE", "_FIL", "_FLIE", "_FILES", "_PATH")):
        known += file_variables()
    import difflib

    return max(known, key=lambda variable: difflib.SequenceMatcher(None, wanted, _stem(variable)).ratio())


def _stem(variable: str) -> str:
    return variable.removeprefix("GLM47_")


def shown(text: str) -> str:
    """`text` quoted on one line, whatever is in it, cut at `MAX_SHOWN` characters."""
    return repr(text) if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]!a}… ({len(text)} characters)"


def shown_name(name: str) -> str:
    """A variable's name as it is where it can be read, else quoted and cut."""
    return name if name.isascii() and name.isprintable() and len(name) <= MAX_SHOWN else shown(name)


def shown_path(path: object) -> str:
    """`path` as it is where it can be printed on one line, else quoted."""
    text = str(path)
    return text if text.isprintable() else repr(text)
