"""Programs on emulated hosts: several machines on one, joined by links of a limited rate.

    python benchmarks/cluster up --hosts 4 --rate 1gbit
    python benchmarks/cluster run -np 8 --per-host 2 -- python prog.py
    python benchmarks/cluster down

or in one command, after which nothing is left, however it ends:

    python benchmarks/cluster run --hosts 4 --rate 100mbit -- python prog.py

The MPI is the one of the Python that runs this. hosts.py says what a host is and what it needs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import hosts
import launches
from ronde.cli import launch
from ronde.errors import UnavailableError


def main(arguments: Sequence[str]) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    launches.end_on_signals()
    try:
        status: int = options.function(options)
        return status
    except (ValueError, hosts.Unavailable, UnavailableError) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    up = commands.add_parser("up", help="start hosts, which stay up")
    up.set_defaults(function=_up)
    up.add_argument("--hosts", type=int, default=4, help="how many (4)")
    up.add_argument(
        "--rate", default="1gbit", help="of each link, each way: 10mbit, 1gbit, unlimited (1gbit)"
    )
    run = commands.add_parser("run", help="run a program on them")
    run.set_defaults(function=_run)
    run.add_argument("--cluster", metavar="NAME", help="on this one, where several are up")
    run.add_argument("--hosts", type=int, help="on so many hosts, only for this run")
    run.add_argument("--rate", default="1gbit", help="of their links (1gbit)")
    run.add_argument("-np", type=int, metavar="N", help="how many ranks (one for each host)")
    run.add_argument(
        "--per-host", type=int, metavar="N", help="ranks to a host (as even as possible)"
    )
    run.add_argument("program", nargs="+", help="the program and its arguments, after --")
    down = commands.add_parser("down", help="end them")
    down.set_defaults(function=_down)
    down.add_argument("cluster", nargs="*", metavar="NAME", help="only these")
    return parser


def _up(options: argparse.Namespace) -> int:
    hosts.known()
    with hosts.cluster(options.hosts, options.rate, lasting=True) as cluster:
        print(cluster.name)
    return 0


def _run(options: argparse.Namespace) -> int:
    if options.hosts is None:
        return _run_on(_chosen(options.cluster), options)
    if options.cluster:
        raise ValueError("--cluster names one that is up, --hosts makes one: give one of them")
    with hosts.cluster(options.hosts, options.rate) as cluster:
        return _run_on(cluster, options)


def _run_on(cluster: hosts.Cluster, options: argparse.Namespace) -> int:
    ranks = options.np or cluster.hosts * (options.per_host or 1)
    per_host = options.per_host or -(-ranks // cluster.hosts)
    command, environment = cluster.launcher(ranks, per_host, options.program, launch.find_mpi())
    return launches.run(command, environment)


def _chosen(name: str | None) -> hosts.Cluster:
    known = hosts.known()
    found = [cluster for cluster in known if name in (None, cluster.name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(cluster.name for cluster in known)
    if not known:
        raise ValueError("no hosts are up; start some with `up`, or give --hosts")
    raise ValueError(f"choose one with --cluster: {names} are up")


def _down(options: argparse.Namespace) -> int:
    known = {cluster.name: cluster for cluster in hosts.known()}
    for name in options.cluster or known:
        if name not in known:
            raise ValueError(f"no cluster {name} is up")
        known[name].down()
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
