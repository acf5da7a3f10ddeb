"""How many nodes the workers of a layout need, and what does not go together. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from entrypoint.errors import ConfigError
from entrypoint.node.job_ports import SLOTS


@dataclass(frozen=True)
class Wanted:
    """The workers of one role."""

    name: str
    """`prefill`, `decode` or `aggregated`."""
    workers: int
    nodes: int
    """Of each worker; several workers that share a node have one."""
    per_node: int = 1

    @property
    def setting(self) -> str:
        """The settings' name for it: aggregated workers have those of decode."""
        return "GLM47_PREFILL" if self.name == "prefill" else "GLM47_DECODE"

    @property
    def groups(self) -> int:
        """Workers, those that share a node counted once."""
        return -(-self.workers // self.per_node)

    @property
    def needs(self) -> int:
        """Nodes."""
        return self.groups * self.nodes

    def in_group(self, index: int) -> int:
        """Workers that share the nodes of group `index`: of the last one what is left."""
        return min(self.per_node, self.workers - index * self.per_node)

    @property
    def arithmetic(self) -> str:
        """How `needs` comes about, by settings."""
        text = f"{self.setting}_WORKERS {self.workers}"
        if self.per_node > 1:
            return f"{text} / {self.setting}_WORKERS_PER_NODE {self.per_node}"
        return f"{text} x {self.setting}_NODES {self.nodes}"

    @property
    def words(self) -> str:
        """`2 prefill workers`."""
        return f"{self.workers} {self.name} worker{'' if self.workers == 1 else 's'}"


def check_sharing(*roles: Wanted) -> None:
    """ConfigError where workers cannot share a node as asked."""
    for role in roles:
        setting = f"{role.setting}_WORKERS_PER_NODE"
        if role.per_node > SLOTS:
            raise ConfigError(
                f"cannot use {setting}: {role.per_node}: a node has ports for {SLOTS} workers: "
                f"use at most {SLOTS}"
            )
        if role.per_node > 1 and role.nodes > 1:
            raise ConfigError(
                f"cannot use {setting}: {role.per_node} with {role.setting}_NODES={role.nodes}: workers of "
                "several nodes take whole nodes: set one of them to 1"
            )


def remaining_workers(total: int, prefill: Wanted, decode: Wanted) -> int:
    """How many workers as `decode` the nodes without prefill workers hold, of `total` nodes."""
    rest, each = total - prefill.needs, decode.nodes
    if rest < each:
        return 1
    if rest % each:
        raise ConfigError(
            f"cannot divide the {nodes_in_words(rest)} for {decode.name} workers: GLM47_DECODE_NODES is "
            f"{each} nodes each: ask Slurm for --nodes={total - rest % each} or "
            f"--nodes={total - rest % each + each}, or change GLM47_DECODE_NODES"
        )
    return rest // each * decode.per_node


def check_count(names: tuple[str, ...], prefill: Wanted, decode: Wanted) -> None:
    """ConfigError where the workers need another number of nodes than `names`."""
    roles = [role for role in (prefill, decode) if role is decode or role.workers]
    wanted = sum(role.needs for role in roles)
    if wanted == len(names):
        return
    what = " and ".join(role.words for role in roles)
    sums = " + ".join(role.arithmetic for role in roles)
    need = f"{sums} need{'s' if len(roles) == 1 else ''} {wanted}"
    if wanted > len(names):
        raise ConfigError(
            f"cannot place {what}: the job has too few nodes, {len(names)}: {need}: "
            f"ask Slurm for --nodes={wanted}, or lower one of them"
        )
    idle = names[wanted:]
    shown = ", ".join(idle[:4]) + (f" and {len(idle) - 4} more" if len(idle) > 4 else "")
    raise ConfigError(
        f"cannot place {what}: the job has too many nodes, {len(names)}: {need}, and {shown} would stay "
        f"idle: ask Slurm for --nodes={wanted}, or raise one of them"
    )


def nodes_in_words(count: int) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} node{'' if count == 1 else 's'}"
