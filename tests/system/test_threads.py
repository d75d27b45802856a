"""Threads: how many compute, and how they wait for each other."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import llama_cpp
import numpy as np
import psutil
import pytest
from cgroup_files import V2_MOUNT, tree

from ondevice.llama import Context, EvalHook, Model, _waiting
from ondevice.llama._thread_trials import ThreadTrials
from ondevice.llama._waiting import best_count, best_policy
from ondevice.products import handlers
from ondevice.system import cores

V1_MOUNTS = "\n".join(
    (
        "30 23 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
        "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
    )
)
#: Computes in two threads, or in as many as get a core, and counts how often they slept: between
#: two products is a pause that is longer than threads spin beside an idle team.
COMPUTE = """
import io, os, resource, sys
from ondevice import llama
from ondevice.llama._product import Product
from ondevice.llama import _waiting
from ondevice.llama._waiting import Waiting, _IdleTeam, _libgomp, threads_now

llama.start(io.StringIO())
waiting = Waiting()
shape = 12, (256, 256), 1
with Product(*shape, 1, allocated=True) as alone, Product(*shape, 2, allocated=True) as both:
    def sleeps():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        for _ in range(2000):
            (both if threads_now(2) == 2 else alone).compute()
            sum(range(3000))
        return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
"""
needs_libgomp = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="needs Linux and its schedstat"
)


def compute(code: str) -> str:
    command = [sys.executable, "-c", COMPUTE + code]
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return done.stdout


@needs_libgomp
def test_programs_of_low_priority_leave_the_cores_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "cpu 9 9 9 9 9 0\ncpu0 100 20 3 400 50 0\ncpu1 100 1 1 1 1 0\n"
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "stat").write_text(lines)
    second = os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr(os, "nice", lambda _: 0)
    assert cores.free_seconds([0], tmp_path) == 470 / second
    monkeypatch.setattr(os, "nice", lambda _: 5)  # those may be of higher priority
    assert cores.free_seconds([0], tmp_path) == 450 / second
    assert cores.free_seconds([0, 1], tmp_path) == 452 / second
    assert cores.free_seconds([0], tmp_path / "nowhere") == 0


def test_without_a_quota_the_cores_compute(tmp_path: Path) -> None:
    assert cores.quota(tmp_path) is None
    usable = cores.usable_cpus()
    physical = psutil.cpu_count(logical=False) or usable
    assert cores.default_threads(tmp_path) == min(physical, usable)


@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [("150000 100000", 1.5), ("50000 100000", 0.5), ("max 100000", None), ("", None)],
)
def test_a_quota_of_cgroup_v2_is_read(tmp_path: Path, cpu_max: str, expected: float | None) -> None:
    root = tree(tmp_path, "0::/app", V2_MOUNT, {"sys/fs/cgroup/app": {"cpu.max": cpu_max}})
    assert cores.quota(root) == expected


def test_the_tightest_of_nested_quotas_counts(tmp_path: Path) -> None:
    groups = {
        "sys/fs/cgroup/a": {"cpu.max": "100000 100000"},
        "sys/fs/cgroup/a/b": {"cpu.max": "700000 100000"},
    }
    assert cores.quota(tree(tmp_path, "0::/a/b", V2_MOUNT, groups)) == 1


def test_a_quota_of_cgroup_v1_is_read(tmp_path: Path) -> None:
    cgroup = "4:memory:/app\n3:cpu,cpuacct:/app"
    quota = {"cpu.cfs_quota_us": "200000", "cpu.cfs_period_us": "100000"}
    root = tree(tmp_path, cgroup, V1_MOUNTS, {"sys/fs/cgroup/cpu,cpuacct/app": quota})
    assert cores.quota(root) == 2
    (root / "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us").write_text("-1\n")
    assert cores.quota(root) is None


def test_no_more_threads_than_a_quota_lets_run(tmp_path: Path) -> None:
    quota = {"cpu.max": "20000 100000"}
    root = tree(tmp_path, "0::/app", V2_MOUNT, {"sys/fs/cgroup/app": quota})
    assert cores.default_threads(root) == 1


def test_unknown_cores_are_the_usable_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: None)  # as on many ARM machines
    assert cores.default_threads(tmp_path) == cores.usable_cpus()


def test_threads_sleep_once_they_often_wait_for_a_core_and_not_at_each_change() -> None:
    assert best_policy("spinning", 0.2) == "spinning"
    assert best_policy("spinning", 0.3) == "asleep"
    assert best_policy("asleep", 0.2) == "asleep"
    assert best_policy("asleep", 0.1) == "spinning"


def test_as_many_threads_compute_as_get_a_core() -> None:
    assert best_count(2, 0.3, 0.0, 2) == 1
    assert best_count(8, 0.5, 0.0, 8) == 4
    assert best_count(1, 0.6, 0.0, 2) == 1
    assert best_count(2, 0.1, 0.1, 2) == 2
    assert best_count(1, 0.0, 0.5, 2) == 1
    assert best_count(1, 0.0, 0.9, 2) == 2
    assert best_count(4, 0.0, 9.0, 8) == 8


@pytest.mark.parametrize("seconds", [0.02, 0.3])
@pytest.mark.parametrize("ratio", [0.7, 1.4])
def test_the_number_of_threads_that_is_faster_is_found_and_seldom_left(
    monkeypatch: pytest.MonkeyPatch, seconds: float, ratio: float
) -> None:
    """Two threads take ``ratio`` of the time of one, here and there more or less."""
    monkeypatch.setattr(_waiting, "_most", 1)
    monkeypatch.setattr(_waiting, "_asleep", True)
    trials, noise = ThreadTrials(), random.Random(5)
    took = {1: 0.0, 2: 0.0}
    while sum(took.values()) < 60:
        n_threads = trials.threads_now(2)
        pass_s = seconds * (ratio if n_threads == 2 else 1) * noise.uniform(0.6, 1.4)
        trials.took(pass_s)
        took[n_threads] += pass_s
    assert took[2 if ratio > 0.9 else 1] < 0.25 * sum(took.values())


def test_nothing_is_tried_while_threads_spin_or_all_get_a_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for most, asleep, expected in ((1, False, 1), (0, True, 2), (0, False, 2)):
        monkeypatch.setattr(_waiting, "_most", most)
        monkeypatch.setattr(_waiting, "_asleep", asleep)
        trials = ThreadTrials()
        for _ in range(300):
            assert trials.threads_now(2) == expected
            trials.took(0.1)


@needs_libgomp
def test_idle_threads_have_the_others_sleep_until_they_end() -> None:
    if os.cpu_count() == 1:
        pytest.skip("needs two cores")
    out = compute(
        "    assert _libgomp() is not None\n"
        "    sleeps(); spinning = sleeps()\n"
        "    team = _IdleTeam(); sleeping = sleeps()\n"
        "    team.end(); again = sleeps()\n"
        "    print(spinning, sleeping, again)\n"
    )
    spinning, sleeping, again = map(int, out.split())
    assert sleeping > 4 * max(spinning, again, 50)


@needs_libgomp
def test_fewer_threads_compute_beside_programs_that_do() -> None:
    n_cores = cores.usable_cpus()
    if n_cores == 1:
        pytest.skip("needs two cores")
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * n_cores)
    ]
    try:
        out = compute(
            "    with waiting:\n"
            "        for _ in range(300):\n"
            "            sleeps()\n"
            f"            if threads_now({n_cores}) < {n_cores}: break\n"
            f"        print(threads_now({n_cores}), waiting.policy)\n"
        )
    finally:
        for each in loops:
            each.kill()
            each.wait()
    count, policy = out.split()
    assert int(count) < n_cores
    assert policy == "asleep"


@needs_libgomp
@pytest.mark.alone
def test_threads_take_all_cores_again_and_spin_once_nobody_else_wants_them() -> None:
    n_cores = cores.usable_cpus()
    if n_cores == 1:
        pytest.skip("needs two cores")
    out = compute(
        "    waiting._idle_team, waiting.policy, _waiting._most = _IdleTeam(), 'asleep', 1\n"
        "    with waiting:\n"
        f"        wanted = ('spinning', {n_cores})\n"
        "        for _ in range(300):\n"
        "            sleeps()\n"
        f"            if (found := (waiting.policy, threads_now({n_cores}))) == wanted: break\n"
        "        print(*found)\n",
    )
    assert out == f"spinning {n_cores}\n"


def test_a_context_computes_with_so_many_where_that_changes_no_bit(
    default_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(default_model, use_extra_bufts=False)
    tokens = model.tokenize("The quick brown fox jumps over the lazy dog.")

    def logits(limits: list[int], hook: EvalHook | None) -> tuple[list[np.ndarray], int]:
        context = Context(model, n_ctx=256, n_threads=2, eval_hook=hook)
        found = []
        for limit, token in zip(limits, tokens, strict=False):
            monkeypatch.setattr(_waiting, "_most", limit)
            context.decode([token])
            found.append(context.logits())
        used = llama_cpp.llama_n_threads(context.handle)
        context.close()
        return found, used

    varied, used = logits([0, 0, 1, 2, 1], EvalHook(*handlers(2)))
    steady, _ = logits([0] * 5, EvalHook(*handlers(2)))
    assert all((a == b).all() for a, b in zip(varied, steady, strict=True))
    assert used == (1 if handlers(2) else 2)
    assert logits([0, 0, 1], EvalHook())[1] == 2  # llama.cpp's products
    model.close()
