"""Ranks' buffers in one address space, and the network that copies between them. Used by harness.py."""

from __future__ import annotations

import concurrent.futures

import numpy as np
from engine_stubs import Stub
from harness_stubs import Loose

LAYERS, PAGE, SLOTS = 2, 2, 4
SOURCE_PAGES, TARGET_PAGES = (2, 0), (1, 3)
"""Pages of the one prompt on either side, in the order of its tokens; it is sent as two chunks of a page."""
HEAD_BYTES = 4
FIRST_ADDRESS = 1 << 16


class Memory:
    """One address space with every rank's buffers in it."""

    def __init__(self) -> None:
        self.used = 0
        self.bytes = np.zeros(1 << 20, dtype=np.uint8)

    def allocate(self, size: int) -> int:
        """The address of a new buffer; the gap behind it belongs to nobody."""
        address = FIRST_ADDRESS + self.used
        self.used += size + 4096
        if self.used > len(self.bytes):
            self.bytes = np.concatenate([self.bytes, np.zeros(self.used + len(self.bytes), dtype=np.uint8)])
        return address

    def view(self, address: int, size: int) -> np.ndarray:
        return self.bytes[address - FIRST_ADDRESS : address - FIRST_ADDRESS + size]


class Rank:
    """The KV buffers of one rank: K of each layer, then V of each layer."""

    def __init__(self, memory: Memory, tp: int, rank: int, heads: int) -> None:
        self.memory, self.rank = memory, rank
        self.own = max(1, heads // tp)
        first = rank * heads // tp
        self.heads = range(first, first + self.own)
        self.item = PAGE * self.own * HEAD_BYTES
        self.size = SLOTS * self.item
        self.pointers = [memory.allocate(self.size) for _ in range(2 * LAYERS)]
        self.aux = memory.allocate(64)

    def cell(self, buffer: int, page: int, token: int, head: int) -> np.ndarray:
        offset = page * self.item + (token * self.own + head) * HEAD_BYTES
        return self.memory.view(self.pointers[buffer] + offset, HEAD_BYTES)

    def cells(self, pages: tuple[int, ...]):
        """Every (cell, what belongs into it) of the prompt."""
        for buffer in range(2 * LAYERS):
            for place, page in enumerate(pages):
                for token in range(PAGE):
                    for index, head in enumerate(self.heads):
                        number = ((buffer * len(pages) + place) * PAGE + token) * 4096 + head + 1
                        yield self.cell(buffer, page, token, index), number

    def holds(self, address: int, size: int) -> bool:
        return any(p <= address and address + size <= p + self.size for p in self.pointers)

    def args(self, heads: int, tp: int) -> Loose:
        """SGLang's KVArgs."""
        count = 2 * LAYERS
        return Loose(
            engine_rank=self.rank,
            gpu_id=0,
            pp_rank=0,
            page_size=PAGE,
            decode_tp_size=tp,
            system_dp_rank=0,
            kv_head_num=self.own,
            total_kv_head_num=heads,
            prefill_start_layer=0,
            kv_data_ptrs=list(self.pointers),
            kv_data_lens=[self.size] * count,
            kv_item_lens=[self.item] * count,
            kv_layer_ids=[],
            kv_data_mem_kinds=["VRAM"] * count,
            aux_data_ptrs=[self.aux],
            aux_data_lens=[64],
            aux_item_lens=[64],
            state_data_ptrs=[],
            state_data_lens=[],
            state_item_lens=[],
            state_types=[],
        )


class Network:
    """Copies for every prefill rank, as NIXL's agent and as Mooncake's engine; remembers notifications."""

    def __init__(self, memory: Memory, targets: dict[str, Rank]) -> None:
        self.memory, self.targets = memory, targets
        self.source: Rank | None = None
        """The prefill rank that sends."""
        self.outside = 0
        self.notifications: list[tuple[str, str]] = []
        """(who gets it, text), in order."""

    def copy(self, peer: str, source: int, target: int, size: int) -> None:
        rank = self.targets[peer]
        if not (rank.holds(target, size) or rank.aux <= target < rank.aux + 64):
            self.outside += 1
            return
        self.memory.view(target, size)[:] = self.memory.view(source, size)

    # -- nixl_agent
    name = "prefill"

    def add_remote_agent(self, metadata):
        return "peer"

    def get_xfer_descs(self, rows, *rest, **more):
        return [tuple(map(int, row)) for row in rows]

    def initialize_xfer(self, operation, source, target, peer, notification=b"", *rest):
        return (peer, source, target, notification)

    def prep_xfer_dlist(self, peer, rows, *rest):
        if len(rows) and len(rows[0]) != 3:
            raise TypeError("runs of descriptors: as an older NIXL, which knows none")
        ranks = [self.source] if peer == "" else [self.targets[peer]]
        found = [tuple(map(int, row)) for row in rows]
        if not all(any(rank.holds(address, size) for rank in ranks) for address, size, _ in found):
            raise LookupError("NIXL_ERR_NOT_FOUND: a descriptor leaves the registered memory")
        return found

    def make_prepped_xfer(self, operation, source, source_at, target, target_at, notification=b"", *rest):
        peer = self.peer_of(target)
        return (peer, [source[i] for i in source_at], [target[i] for i in target_at], notification)

    def peer_of(self, rows) -> str:
        for name, rank in self.targets.items():
            if any(p - rank.size <= rows[0][0] <= p + 2 * rank.size for p in rank.pointers):
                return name
        raise AssertionError("a prepared list that belongs to no decode rank")

    def transfer(self, handle):
        peer, sources, targets, notification = handle
        for (source, size, _), (target, target_size, _) in zip(sources, targets, strict=True):
            assert size == target_size, "lengths of a transfer differ"
            self.copy(peer, source, target, size)
        self.notifications.append((peer, notification.decode()))
        return "DONE"

    def check_xfer_state(self, handle):
        return "DONE"

    def __getattr__(self, name):
        return Stub()

    # -- Mooncake's engine
    def batch_transfer_sync(self, session, sources, targets, sizes):
        for source, target, size in zip(sources, targets, sizes, strict=True):
            self.copy(session, int(source), int(target), int(size))
        return 0

    def transfer_sync(self, session, source, target, size):
        return self.batch_transfer_sync(session, [source], [target], [size])


class Immediately:
    """An executor that has done it already."""

    def submit(self, call, *args, **kwargs):
        future = concurrent.futures.Future()
        try:
            future.set_result(call(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
