"""Drives an sglang release's own KV transfer on byte arrays: which heads arrive where, when decode goes on.

``python harness.py < request.json > rows.json`` in an environment with numpy. The request names a directory
with an unpacked sglang, transfer backends, numbers of KV heads and pairs of attention-TPs; the answer is one
row per combination. The release's own code decides which prefill ranks a decode rank asks, which bytes each
of them sends (`send_kvcache`, `send_kvcache_slice`), and when decode takes the transfer for done. What stands
in for the network copies between arrays, and counts what lands outside of the decode rank's own buffers.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
import types
from collections import defaultdict
from pathlib import Path

import numpy as np
from engine_stubs import Stub
from harness_memory import LAYERS, PAGE, SLOTS, SOURCE_PAGES, TARGET_PAGES, Immediately, Memory, Network, Rank
from harness_stubs import Loose, load

ROOM = 7
"""The number of the one request."""


class Stop(BaseException):
    """Ends a worker's endless loop."""


class Chunks:
    """A queue with some chunks in it."""

    def __init__(self, *chunks) -> None:
        self.chunks = list(chunks)

    def get(self):
        if not self.chunks:
            raise Stop
        return self.chunks.pop(0)


class Log:
    """A logger; what is logged while an exception is handled is that exception."""

    def __init__(self) -> None:
        self.error_seen: BaseException | None = None

    def exception(self, *args, **kwargs):
        self.error_seen = self.error_seen or sys.exc_info()[1]

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


def call(function, **known):
    """`function` with those of `known` that it takes."""
    takes = inspect.signature(function).parameters
    return function(**{name: value for name, value in known.items() if name in takes})


def manager(module, args: Loose, tp: int, mode: str, network: Network):
    """The release's own manager of one rank, without what its constructor starts."""
    kind = next(
        v for k, v in vars(module).items() if k.endswith("KVManager") and not k.startswith(("Common", "Base"))
    )
    lenient = type("Lenient", (kind,), {"__getattr__": Loose.__getattr__, "__init__": lambda self: None})
    lenient.__abstractmethods__ = frozenset()
    made = lenient()
    made.__dict__.update(
        kv_args=args,
        attn_tp_size=tp,
        attn_tp_rank=args.engine_rank % tp,
        disaggregation_mode=module.DisaggregationMode[mode],
        is_mla_backend=False,
        is_hybrid_mla_backend=False,
        pp_size=1,
        pp_rank=0,
        attn_cp_size=1,
        attn_cp_rank=0,
        attn_dp_size=1,
        agent=network,
        engine=network,
        request_status=defaultdict(int),
        transfer_infos={},
        decode_kv_args_table={},
        prep_handles={},
        prep_handles_segment_src={},
        prep_handles_slice_dst={},
        prep_handle_slice_src=None,
        enable_staging=False,
        enable_custom_mem_pool=False,
        enable_deferred_decode_kv_release=False,
        src_mem_kind="VRAM",
        _num_slots_src=SLOTS,
        transfer_source_rank=args.engine_rank,
        _staging_outstanding=defaultdict(int),
        exceptions={},
        failure_records={},
        max_transfer_batch_indices=0,
        required_prefill_response_num_table={},
        prefill_attn_tp_size_table={},
        prefill_dp_size_table={},
        prefill_pp_size_table={},
        prefill_page_size_table={},
        connection_pool={},
        prefill_info_table={},
        addr_to_rooms_tracker=defaultdict(set),
        state_strides_validated=set(),
        failed_sessions=set(),
    )
    return made


def asks(module, decode, prefill_tp: int) -> tuple[list[int], int, int]:
    """Which prefill ranks the decode rank asks, how many decode ranks each of them waits for, and how many
    answers it waits for itself: by the release's own code."""
    if hasattr(type(decode), "_resolve_rank_mapping"):
        info = Loose(
            attn_tp_size=prefill_tp, attn_cp_size=1, dp_size=1, pp_size=1, enable_dsa_cache_layer_split=False
        )
        decode._resolve_rank_mapping(info)
        return info.target_tp_ranks, info.required_dst_info_num, info.required_prefill_response_num
    kind = sys.modules["sglang.srt.disaggregation.common.conn"].CommonKVReceiver
    facts = (prefill_tp, 1, 1, PAGE)
    count = 4 if "prefill_page_size" in kind.__init__.__code__.co_names else 3

    class Receiver(kind):
        def _get_prefill_parallel_info_from_server(self):
            return facts[:count]

        def _get_bootstrap_info_from_server(self, *args):
            return {}

        def _register_kv_args(self):
            pass

    Receiver.__abstractmethods__ = frozenset()
    found = Receiver(decode, "here:1", ROOM, 0)
    return found.target_tp_ranks, found.required_dst_info_num, found.required_prefill_response_num


def send(module, backend: str, prefill, targets: list[tuple[str, Rank, int]], decode_tp: int) -> None:
    """Send the prompt from one prefill rank to those decode ranks."""
    indices, wanted = np.array(SOURCE_PAGES, dtype=np.int32), np.array(TARGET_PAGES, dtype=np.int32)
    infos = {}
    for name, rank, number in targets:
        peer = Loose(
            room="None",
            agent_name=name,
            mooncake_session_id=name,
            dst_kv_ptrs=list(rank.pointers),
            dst_aux_ptrs=[rank.aux],
            gpu_id=0,
            decode_tp_size=decode_tp,
            decode_tp_rank=number,
            dst_tp_rank=number,
            dst_attn_tp_size=decode_tp,
            dst_kv_item_len=rank.item,
            dst_kv_item_lens=[rank.item] * 2 * LAYERS,
            dst_kv_mem_kinds=["VRAM"] * 2 * LAYERS,
            dst_kv_layer_ids=[],
            dst_num_slots=SLOTS,
            kv_xfer_segments=None,
            requires_dcp_relayout=False,
            dst_dcp_size=1,
            dst_dcp_rank=0,
            staging=None,
            dst_state_data_ptrs=[],
            dst_homogeneous_mem_kind="VRAM",
        )
        infos[name] = Loose(
            room=ROOM,
            agent_name=name,
            dst_kv_indices=wanted,
            dst_aux_index=0,
            is_dummy=Stub(),
            required_dst_info_num=len(targets),
            dst_state_indices=[],
            decode_prefix_len=0,
            dst_port=1,
        )
        if backend == "nixl":
            prefill.requires_dcp_relayout = lambda *args: False
            prefill._add_remote_peer(peer)
        else:
            code = _mooncake(prefill, peer, indices, wanted)
            if code:
                raise RuntimeError(f"the transfer answered {code}")
    if backend == "nixl":
        prefill.transfer_infos[ROOM] = infos
        _nixl(module, prefill, indices)


def _mooncake(prefill, peer: Loose, indices, wanted) -> int:
    equal = peer.dst_attn_tp_size == prefill.attn_tp_size
    return call(
        prefill.send_kvcache if equal else prefill.send_kvcache_slice,
        mooncake_session_id=peer.mooncake_session_id,
        prefill_kv_indices=indices,
        dst_kv_ptrs=peer.dst_kv_ptrs,
        dst_kv_indices=wanted,
        dst_tp_rank=peer.dst_tp_rank,
        dst_attn_tp_size=peer.dst_attn_tp_size,
        dst_kv_item_len=peer.dst_kv_item_len,
        executor=Immediately(),
    )


def _nixl(module, prefill, indices) -> None:
    """The prompt as two chunks, through whatever the release sends chunks with."""
    last = len(indices) - 1
    if not hasattr(type(prefill), "transfer_worker"):
        for i in range(len(indices)):
            call(
                prefill.add_transfer_request,
                bootstrap_room=ROOM,
                kv_indices=indices[i : i + 1],
                index_slice=slice(i, i + 1),
                is_last=i == last,
                is_last_chunk=i == last,
                chunk_id=i,
                aux_index=0,
            )
        return
    log = module.logger = Log()
    prefill.request_status[ROOM] = 1
    chunks = []
    for i in range(len(indices)):
        chunk = Loose(room=ROOM, chunk_id=i, is_last=i == last, is_last_chunk=i == last, prefill_aux_index=0)
        chunk.prefill_kv_indices, chunk.index_slice = indices[i : i + 1], slice(i, i + 1)
        chunk.state_indices = chunk.num_kv_tokens = None
        chunks.append(chunk)
    with contextlib.suppress(Stop):
        prefill.transfer_worker(Chunks(*chunks))
    if log.error_seen is not None:
        raise log.error_seen


def goes_on(module, decode, answers: int, told: list) -> str:
    """When the decode rank takes the transfer for done, given what each prefill rank tells it.

    `last` (right), `early` (with a rank still to send) or `never`.
    """
    if hasattr(type(decode), "update_transfer_status"):
        done = _by_notifications
    elif hasattr(type(decode), "apply_prefill_status"):
        done = _by_answers
    else:
        done = _by_messages
    if not done(module, decode, answers, told):
        return "never"
    if any(done(module, decode, answers, told[:i] + told[i + 1 :]) for i in range(len(told))):
        return "early"
    return "last"


def _by_notifications(module, decode, answers: int, told: list) -> bool:
    """What NIXL itself delivers with the data."""
    texts = [text.encode() for rank in told for text in rank["texts"]]
    decode.transfer_statuses = defaultdict(module.TransferStatus)
    decode.required_prefill_response_num_table = {ROOM: answers}
    decode.agent = types.SimpleNamespace(get_new_notifs=lambda: {"peer": texts})
    decode.update_transfer_status()
    return bool(decode.check_transfer_done(ROOM))


def _by_answers(module, decode, answers: int, told: list) -> bool:
    """What prefill ranks report in messages of their own."""
    success = module.KVPoll.Success
    decode.request_status = {ROOM: module.KVPoll.Bootstrapping}
    decode.prefill_response_tracker = {ROOM: set()}
    decode.required_prefill_response_num_table = {ROOM: answers}
    for rank in told:
        decode.apply_prefill_status(bootstrap_room=ROOM, status=success, prefill_rank=rank["number"])
    return decode.request_status[ROOM] == success


def _by_messages(module, decode, answers: int, told: list) -> bool:
    """The same, read from its socket by the thread that the release starts for that."""
    success = module.KVPoll.Success
    frames = [(str(ROOM), str(int(success)), str(rank["number"])) for rank in told]
    queue = Chunks(*([word.encode() for word in frame] for frame in frames))
    decode.request_status = {ROOM: module.KVPoll.Bootstrapping}
    decode.prefill_response_tracker = defaultdict(set)
    decode.required_prefill_response_num_table = {ROOM: answers}
    decode.server_socket = types.SimpleNamespace(recv_multipart=queue.get)

    class Thread:
        def __init__(self, target, **options):
            self.target = target

        def start(self):
            if self.target.__name__ == "decode_thread":
                with contextlib.suppress(Stop):
                    self.target()

    module.threading = types.SimpleNamespace(Thread=Thread)
    decode.start_decode_thread()
    return decode.request_status[ROOM] == success


def case(module, backend: str, heads: int, prefill_tp: int, decode_tp: int) -> dict:
    """One row: KV heads in place of all that belong there, writes outside, and when decode goes on."""
    row: dict = {"backend": backend, "kv_heads": heads, "prefill": prefill_tp, "decode": decode_tp}
    memory = Memory()
    sources = [Rank(memory, prefill_tp, r, heads) for r in range(prefill_tp)]
    ranks = [Rank(memory, decode_tp, r, heads) for r in range(decode_tp)]
    names = {f"decode{r.rank}": r for r in ranks}
    network = Network(memory, names)
    for rank in sources:
        for cell, number in rank.cells(SOURCE_PAGES):
            cell[:] = np.frombuffer(number.to_bytes(4, "little"), dtype=np.uint8)
    told: dict[int, list[dict]] = defaultdict(list)
    decodes, wants = {}, defaultdict(list)
    try:
        for rank in ranks:
            decode = manager(module, rank.args(heads, decode_tp), decode_tp, "DECODE", network)
            decodes[rank.rank] = (decode, asks(module, decode, prefill_tp))
            for target in decodes[rank.rank][1][0]:
                wants[target].append(rank)
        for number, wanting in sorted(wants.items()):
            prefill = manager(module, sources[number].args(heads, prefill_tp), prefill_tp, "PREFILL", network)
            if {decodes[r.rank][1][1] for r in wanting} != {len(wanting)}:
                row["error"] = f"a prefill rank waits for others than the {len(wanting)} that ask it"
                break
            network.notifications, network.source = [], sources[number]
            send(module, backend, prefill, [(f"decode{r.rank}", r, r.rank) for r in wanting], decode_tp)
            for rank in wanting:
                texts = [text for peer, text in network.notifications if peer == f"decode{rank.rank}"]
                unique = prefill._prefill_unique_rank()
                unique = number if isinstance(unique, Stub) else unique
                told[rank.rank].append({"texts": texts, "number": unique})
    except Exception as error:
        row["error"] = f"{type(error).__name__}: {str(error) or 'no reason'}".splitlines()[0]
    cells = [(cell, number) for rank in ranks for cell, number in rank.cells(TARGET_PAGES)]
    row["in_place"] = sum(int.from_bytes(cell.tobytes(), "little") == number for cell, number in cells)
    row["of"] = len(cells)
    row["outside"] = network.outside
    if "error" not in row:
        ends = {goes_on(module, decode, found[2], told[rank]) for rank, (decode, found) in decodes.items()}
        row["goes_on"] = next(word for word in ("never", "early", "last") if word in ends)
    return row


def main() -> None:
    request = json.load(sys.stdin)
    rows = []
    for backend in request["backends"]:
        module = load(Path(request["sglang"]), backend)
        for name, loaded in list(sys.modules.items()):
            if name.startswith("sglang.") and "logger" in vars(loaded):
                loaded.logger = Log()
        for heads in request["kv_heads"]:
            for prefill_tp, decode_tp in request["pairs"][str(heads)]:
                rows.append(case(module, backend, heads, prefill_tp, decode_tp))
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
