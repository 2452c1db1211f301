"""Hosts from the command line, from files and from Slurm, and the ranks that they take."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ronde.cli import hosts
from ronde.cli.hosts import Host

NAMES = st.from_regex(r"[a-z]([a-z0-9.-]{0,6}[a-z0-9])?", fullmatch=True)
HOSTS = st.lists(
    st.builds(Host, NAMES, st.integers(1, 200)),
    min_size=1,
    max_size=8,
    unique_by=lambda host: host.name,
)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a", [("a", 1)]),
        ("a:4", [("a", 4)]),
        ("a:4,b", [("a", 4), ("b", 1)]),
        (" a:4 , b:2 ", [("a", 4), ("b", 2)]),
        ("b:1,a:2,b:3", [("b", 4), ("a", 2)]),
        ("node-1.site.example:8", [("node-1.site.example", 8)]),
        ("192.168.0.7:2", [("192.168.0.7", 2)]),
        ("gpu_1", [("gpu_1", 1)]),
    ],
)
def test_hosts_of_the_command_line(text: str, expected: list[tuple[str, int]]) -> None:
    assert hosts.parse_hosts(text) == [Host(*host) for host in expected]


@pytest.mark.parametrize(
    "text",
    [
        *["", ",", "a,", "a:", "a:0", "a:-1", "a:+1", "a:1.5", "a:4:4", "a b", "a;b", "a=4"],
        *["-x", "--host", ":4", "user@a", "a:99999999999", "\u00e4", "a:\u0664"],
    ],
)
def test_what_is_no_list_of_hosts(text: str) -> None:
    with pytest.raises(ValueError):
        hosts.parse_hosts(text)


@pytest.mark.parametrize(
    "text", ["::1", "[::1]", "[::1]:4", "fe80::2", "fd00::7:4", "2001:db8::1", "a,[fd00::7]:2"]
)
def test_an_ipv6_address_is_never_taken_for_a_host_with_slots(text: str) -> None:
    with pytest.raises(ValueError, match="IPv6"):
        hosts.parse_hosts(text)


HOSTFILE = """
# the cluster
node1 slots=4      # of Open MPI
node2 slots = 2
node3:3
\tnode4\t
node1:1
"""


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_hostfile_of_either_kind(ending: str) -> None:
    found = hosts.parse_hostfile("\ufeff" + HOSTFILE.replace("\n", ending), "hosts")
    assert found == [Host("node1", 5), Host("node2", 2), Host("node3", 3), Host("node4", 1)]


@pytest.mark.parametrize(
    "line",
    [
        *["a slots=0", "a slots=", "a slots=x", "a slots", "a 4", "a slots=4 max_slots=8"],
        *["a max_slots=4", "a:4 slots=4", "slots=4", "a,b", "-x", "::1", "::1 slots=4", "a:"],
    ],
)
def test_an_error_in_a_hostfile_names_file_and_line(line: str) -> None:
    with pytest.raises(ValueError, match=r"^my\.hosts:3: "):
        hosts.parse_hostfile(f"fine slots=2\n\n{line}\nalso-fine\n", "my.hosts")


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_a_hostfile_has_hosts(text: str) -> None:
    with pytest.raises(ValueError, match=r"my\.hosts contains no host"):
        hosts.parse_hostfile(text, "my.hosts")


@given(HOSTS)
def test_what_is_written_is_read(some: list[Host]) -> None:
    assert hosts.parse_hosts(",".join(f"{host.name}:{host.slots}" for host in some)) == some
    for form in ("{} slots={}", "{}:{}"):
        text = "\n".join(form.format(host.name, host.slots) for host in some)
        assert hosts.parse_hostfile(text, "hosts") == some


# ---- Slurm ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("node", "node"),
        ("node1,node3", "node1 node3"),
        ("node[1-3]", "node1 node2 node3"),
        ("node[01-03,7],gpu5", "node01 node02 node03 node7 gpu5"),
        ("node[8-11]", "node8 node9 node10 node11"),
        ("node[098-101]", "node098 node099 node100 node101"),
        ("node[5]", "node5"),
        ("a[1,3]b", "a1b a3b"),
        ("rack[1-2]node[1-2]", "rack1node1 rack1node2 rack2node1 rack2node2"),
        ("n-[1-2].site.example,m", "n-1.site.example n-2.site.example m"),
    ],
)
def test_a_nodelist_is_expanded(text: str, expected: str) -> None:
    assert hosts.expand_nodelist(text) == expected.split()


@pytest.mark.parametrize(
    "text",
    [
        *["", ",", "a,", "a[", "a]", "a[]", "a[1", "a1]", "a[1-]", "a[-1]", "a[3-1]", "a[x]"],
        *["a[1-2-3]", "a[1,]", "a[[1]]", "a b", "a[1-99999999999]", "[1-2", "-x", "(null)"],
        "a[1-60000][1-60000]",
    ],
)
def test_what_is_no_nodelist(text: str) -> None:
    with pytest.raises(ValueError, match="is not a nodelist"):
        hosts.expand_nodelist(text)


def nodelist(prefixes: list[str], numbers: list[list[int]], width: int) -> tuple[str, list[str]]:
    """A nodelist as Slurm writes it, and the names in it."""
    entries, names = [], []
    for prefix, some in zip(prefixes, numbers, strict=True):
        runs = []
        for _, run in groupby(enumerate(sorted(some)), key=lambda pair: pair[1] - pair[0]):
            of_run = [f"{number:0{width}}" for _, number in run]
            names += [prefix + number for number in of_run]
            runs.append(of_run[0] if len(of_run) == 1 else f"{of_run[0]}-{of_run[-1]}")
        entries.append(f"{prefix}[{','.join(runs)}]" if some else prefix)
        names += [] if some else [prefix]
    return ",".join(entries), names


@given(st.data(), st.integers(1, 5))
def test_a_nodelist_names_what_was_put_in(data: st.DataObject, width: int) -> None:
    prefixes = data.draw(st.lists(st.from_regex(r"[a-z][a-z-]{0,4}", fullmatch=True), min_size=1))
    some = st.lists(st.integers(0, 10**width - 1), max_size=12, unique=True)
    numbers = data.draw(st.lists(some, min_size=len(prefixes), max_size=len(prefixes)))
    text, names = nodelist(prefixes, numbers, width)
    assert hosts.expand_nodelist(text) == names


@given(st.text(alphabet="ab01,-[]()x: ", max_size=12))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    for expand in (hosts.expand_nodelist, hosts.expand_counts):
        try:
            assert expand(text)
        except ValueError as error:
            assert "is not a" in str(error)


@given(st.lists(st.integers(1, 300), min_size=1))
def test_counts_are_expanded(counts: list[int]) -> None:
    runs = [(count, len(list(run))) for count, run in groupby(counts)]
    text = ",".join(f"{count}(x{times})" if times > 1 else str(count) for count, times in runs)
    assert hosts.expand_counts(text) == counts


@pytest.mark.parametrize("text", ["", "x", "4(x2", "4x2", "4(2)", "0", "-1", "4,", "4(x)"])
def test_what_are_no_counts(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        hosts.expand_counts(text)


SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_TASKS_PER_NODE": "4(x2),3"}


def test_an_allocation_with_tasks() -> None:
    found = hosts.allocation(SLURM)
    assert found == hosts.Allocation("7", (Host("n1", 4), Host("n2", 4), Host("n3", 3)), 11)
    assert hosts.allocation({**SLURM, "SLURM_NTASKS": "9"}).ranks == 9  # type: ignore[union-attr]


def test_an_allocation_by_its_older_names_and_by_cores() -> None:
    older = {"SLURM_JOBID": "7", "SLURM_NODELIST": "a,b", "SLURM_JOB_CPUS_PER_NODE": "8(x2)"}
    assert hosts.allocation(older) == hosts.Allocation("7", (Host("a", 8), Host("b", 8)), 16)
    one = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "a", "SLURM_CPUS_ON_NODE": "6"}
    assert hosts.allocation(one) == hosts.Allocation("7", (Host("a", 6),), 6)
    bare = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "a,b"}
    assert hosts.allocation(bare) == hosts.Allocation("7", (Host("a", 1), Host("b", 1)), 2)


def test_no_allocation() -> None:
    assert hosts.allocation({"PATH": "/bin"}) is None
    assert hosts.allocation({"SLURM_JOB_ID": "7"}) is None
    assert hosts.allocation({"SLURM_NODELIST": "a"}) is None


def test_an_allocation_that_contradicts_itself() -> None:
    with pytest.raises(ValueError, match=r"SLURM_TASKS_PER_NODE=4\(x2\) is for 2 nodes.* has 3"):
        hosts.allocation({**SLURM, "SLURM_TASKS_PER_NODE": "4(x2)"})


def test_hosts_within_an_allocation_take_its_order() -> None:
    allocated = [Host("a", 4), Host("b", 4), Host("c", 4)]
    assert hosts.within([Host("c", 1), Host("a", 2)], allocated) == [Host("a", 2), Host("c", 1)]
    assert hosts.within([Host("a", 1), Host("d", 1)], allocated) is None


@pytest.mark.parametrize(
    "variables, refused",
    [
        ({}, ""),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, ""),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "one of 2 ranks"),
        ({"PMI_SIZE": "8"}, "one of 8 ranks"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}, "step 0 of job 7"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEPID": "3"}, "step 3 of job 7"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "4294967291"}, ""),  # a batch script
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "4294967290"}, ""),  # a shell of salloc
        ({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, ""),
    ],
)
def test_ranks_start_no_jobs(variables: dict[str, str], refused: str) -> None:
    if not refused:
        hosts.refuse_within_job(variables)
        return
    with pytest.raises(ValueError, match=refused):
        hosts.refuse_within_job(variables)


# ---- placement -----------------------------------------------------------------------------------

TWO = [Host("a", 4), Host("b", 2)]


@pytest.mark.parametrize(
    "ranks, per_host, oversubscribe, expected",
    [
        (None, None, False, "a4 b2"),
        (6, None, False, "a4 b2"),
        (5, None, False, "a4 b1"),
        (4, None, False, "a4"),
        (1, None, False, "a1"),
        (None, 1, False, "a1 b1"),
        (3, 2, False, "a2 b1"),
        (None, 3, True, "a3 b3"),
        (6, None, True, "a4 b2"),
        (9, None, True, "a6 b3"),
        (10, None, True, "a6 b4"),
        (8, 2, True, "a4 b4"),
    ],
)
def test_ranks_fill_hosts_in_order(
    ranks: int | None, per_host: int | None, oversubscribe: bool, expected: str
) -> None:
    placed = hosts.place(TWO, ranks, per_host, oversubscribe)
    assert placed == [Host(word[0], int(word[1:])) for word in expected.split()]


@pytest.mark.parametrize(
    "ranks, per_host, complaint",
    [
        (7, None, "-np 7: 2 hosts with 6 slots in all; --oversubscribe allows"),
        (None, 3, "--per-host 3: b has 2 slots; --oversubscribe allows"),
        (3, 1, "-np 3: 2 hosts with 2 slots in all"),
    ],
)
def test_ranks_that_do_not_fit(ranks: int | None, per_host: int | None, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        hosts.place(TWO, ranks, per_host, oversubscribe=False)


@given(HOSTS, st.integers(1, 2000))
def test_every_rank_has_a_place(some: list[Host], ranks: int) -> None:
    placed = hosts.place(some, ranks, None, oversubscribe=True)
    assert sum(host.slots for host in placed) == ranks
    assert [host.name for host in placed] == [host.name for host in some][: len(placed)]
    slots = {host.name: host.slots for host in some}
    if ranks <= sum(slots.values()):
        assert all(host.slots <= slots[host.name] for host in placed)
