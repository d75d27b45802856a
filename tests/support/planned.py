"""Plans for files, RAM and speeds that a test makes up."""

from __future__ import annotations

from ondevice.gguf import GGUFFile
from ondevice.holding.machine import Machine
from ondevice.holding.plan import Plan
from ondevice.holding.speeds import Speeds
from ondevice.messages import KVType, Load, Preference
from ondevice.planning.planner import best_plan
from ondevice.ram.available import AvailableRam


def plan(
    file: GGUFFile,
    ram: AvailableRam,
    speeds: Speeds,
    *,
    n_ctx: int | None = None,
    kv_type: KVType | None = None,
    kv_type_before: KVType | None = None,
    drafter: GGUFFile | None = None,
    preference: Preference = "balanced",
) -> Plan:
    load = Load(
        path=str(file.path),
        n_ctx=n_ctx,
        kv_type=kv_type,
        kv_type_before=kv_type_before,
        prefer=preference,
    )
    return best_plan(file, load, Machine(ram, speeds), drafter)
