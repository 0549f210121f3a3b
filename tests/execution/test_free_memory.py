"""How much memory is free, held against made-up cgroups."""

import sys

import pytest

from musc_jax.execution import free_memory

V2 = "0::/\n"
V1 = "12:cpuset:/jobs/1\n4:memory:/\n0::/\n"
STAT_V2 = "anon 100\nfile 700\nactive_file 100\ninactive_file 600\n"
# Version 1 has each key twice: of the cgroup alone, and with those below it.
STAT_V1 = "cache 9\ninactive_file 9\ntotal_cache 700\ntotal_active_file 100\ntotal_inactive_file 600\n"


def v2(limit="1000", usage="900", stat=STAT_V2, at=""):
    return {f"{at}memory.max": limit, f"{at}memory.current": usage, f"{at}memory.stat": stat}


def v1(limit="1000", usage="900", stat=STAT_V1, at=""):
    names = "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"
    return {f"memory/{at}{name}": text for name, text in zip(names, (limit, usage, stat), strict=True)}


def without(files, name):
    return {path: text for path, text in files.items() if not path.endswith(name)}


NO_LIMIT = sys.maxsize
CASES = {
    "the page cache is free": (V2, v2(), 700),
    "version 1": (V1, v1(), 700),
    "no limit": (V2, v2("max\n"), NO_LIMIT),
    "no limit in version 1": (V1, v1("9223372036854771712\n"), 9223372036854771712 - 300),
    "both versions, one with limits": (V1, v1() | {"cgroup.procs": "1"}, 700),
    "no limit as a negative number": (V2, v2("-1"), NO_LIMIT),
    "no cgroups": (V2, {}, NO_LIMIT),
    "no statistics": (V2, without(v2(), "stat"), 100),
    "no statistics of files": (V2, v2(stat="anon 100\n\n"), 100),
    "no usage": (V2, without(v2(), "current"), NO_LIMIT),
    "beyond the limit": (V2, v2(usage="1100", stat=""), 0),
    "more cache than usage": (V2, v2(usage="500"), 1000),
    "no number as limit": (V2, v2("1e3"), NO_LIMIT),
    "no number as usage": (V2, v2(usage=""), NO_LIMIT),
    "no number in the statistics": (V2, v2(stat="inactive_file many\n"), 100),
    "no value in the statistics": (V2, v2(stat="inactive_file\n"), 100),
    "no text": (V2, v2(b"\xff\xfe"), NO_LIMIT),
    "the own cgroup is the tightest": ("0::/pod/box\n", v2("5000", at="pod/") | v2(at="pod/box/"), 700),
    "one around it is the tightest": ("0::/pod/box\n", v2(at="pod/") | v2("max", at="pod/box/"), 700),
    "the topmost is the tightest": ("0::/pod/box\n", v2() | v2("5000", at="pod/box/"), 700),
    "the own one in version 1": ("4:cpuacct,memory:/pod/box\n", v1("5000", at="pod/") | v1(at="pod/box/"), 700),
    "another's does not count": ("0::/pod/box\n", v2(at="pod/other/"), NO_LIMIT),
    "only the own one is mounted": ("0::/pod/box\n", v2(), 700),
    "outside of what is mounted": ("0::/../other\n", v2() | v2("400", at="../other/"), 700),
    "a colon in the name": ("0::/a:b\n", v2(at="a:b/"), 700),
    "no list": (None, v2(), 700),
    "no list that can be read": (b"\xff0::/pod\n", v2() | v2("400", at="pod/"), 700),
    "odd lines in the list": ("\n::\n0\n0::/pod\n", v2(at="pod/"), 700),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_container_has_left(tmp_path, name):
    listed, files, want = CASES[name]
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    for path, text in ({} if listed is None else {membership: listed}).items() | {
        (root / path, text) for path, text in files.items()
    }:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert free_memory.free_of_container(root, membership) == want


def test_plans_take_four_fifths_of_what_is_free(monkeypatch):
    monkeypatch.setattr(free_memory, "free_of_container", lambda: 1_000)
    assert free_memory.usable_memory() == 800
    monkeypatch.setattr(free_memory, "free_of_container", lambda: sys.maxsize)
    assert 1 << 20 < free_memory.usable_memory() < 1 << 50, "the machine's"


def test_this_system_can_be_asked():
    assert 0 <= free_memory.free_of_container() <= 1 << 63
