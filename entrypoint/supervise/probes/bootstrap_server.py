"""Asking SGLang's bootstrap server what decode workers ask it before their first request.

GET /route with every rank -1 asks for the parallel layout. SGLang 0.5.10 renamed the parameters: both names
are sent. Up to 0.5.9 it answers as soon as one rank has registered, so there each rank is asked for; later
releases answer 503 until all have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from entrypoint.base.foreign import from_json

if TYPE_CHECKING:
    import httpx

LAYOUT = dict.fromkeys(
    (
        "engine_rank", "target_dp_group", "target_pp_rank",
        "prefill_dp_rank", "prefill_cp_rank", "target_tp_rank",
    ),
    "-1",
)  # fmt: skip


def fault(url: str, client: httpx.Client) -> str | None:
    """Why a decode worker would not find every rank through the server at `url`; None: it would."""
    import httpx

    try:
        answer = client.get(f"{url}/route", params=LAYOUT)
        if not answer.is_success:
            return f"answers {answer.status_code}: {answer.text[:200].strip()}"
        layout = from_json(answer.content)
        if not isinstance(layout, dict) or _number(layout, "attn_tp_size") is None:
            return "knows no rank of its worker"
        missing = _missing(url, client, layout) if "prefill_attn_tp_size" in layout else ()
    except httpx.ConnectError as error:
        return f"cannot be connected to: {error}"
    except httpx.TimeoutException:
        return "does not answer in time"
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return f"cannot be asked: {error or type(error).__name__}"
    return (
        f"does not know its worker's rank{'s' * (len(missing) > 1)} {', '.join(missing)}" if missing else None
    )


def _number(layout: dict[str, Any], name: str) -> int | None:
    """A field of the layout; up to 0.5.9 its name has a prefix."""
    value = layout.get(name, layout.get(f"prefill_{name}"))
    return value if isinstance(value, int) else None


def _missing(url: str, client: httpx.Client, layout: dict[str, Any]) -> tuple[str, ...]:
    found = []
    for dp in range(_number(layout, "dp_size") or 1):
        for tp in range(_number(layout, "attn_tp_size") or 1):
            for pp in range(_number(layout, "pp_size") or 1):
                rank = {"target_dp_group": dp, "engine_rank": tp, "target_pp_rank": pp}
                if not client.get(f"{url}/route", params=rank).is_success:
                    found.append(f"DP {dp} TP {tp} PP {pp}")
    return tuple(found)
