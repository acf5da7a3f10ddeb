"""Several looks at once, none of which may keep the others waiting: a dead file system answers nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any


def side_by_side(
    looks: Mapping[str, Callable[[], Any]], seconds: float
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(what each look returned, the names of those that had not returned after `seconds`).

    Raises what a look raised. One that never returns is left behind in a daemon thread.
    """
    found: dict[str, Any] = {}
    raised: list[BaseException] = []

    def work(name: str, look: Callable[[], Any]) -> None:
        try:
            found[name] = look()
        except BaseException as error:
            raised.append(error)

    threads = {
        name: threading.Thread(target=work, args=(name, look), name=name, daemon=True)
        for name, look in looks.items()
    }
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    if raised:
        raise raised[0]
    answered = dict(found)
    return answered, tuple(name for name in looks if name not in answered)
