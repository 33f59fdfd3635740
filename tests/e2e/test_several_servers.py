"""Three real servers on one real etcd, and what befalls them."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from cluster.etcd import Etcd
from cluster.wires import LINK, Wires

from dkron.plugins.contracts.ports import free_port

from .conftest import Answer, Lab, Program, Server, until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(150)]

JOBS = 5
LEASE = 3  # seconds: a leader's lasts for five, of which two may have gone by when it was last prolonged
SECOND = 1_000_000_000
_keyspaces = count(1)


class Cluster:
    """Servers that others reach through a proxy each, and jobs that are due each second and write down that they run."""

    def __init__(self, lab: Lab, etcd: Etcd) -> None:
        self.lab = lab
        self.journal = lab.folder / "journal"
        self.flags = ("--etcd-machines", f"127.0.0.1:{etcd.members[0].port}", "--keyspace", f"/dkron{next(_keyspaces)}")
        self.servers: list[Server] = []
        self.wires = Wires()
        self.addresses: dict[str, str] = {}  # at which others reach the servers' ports for links

    def launch(self, name: str, *flags: str) -> Server:
        """Start a server, and do not wait for it."""
        server = Server(self.lab.folder, name, *self.flags, *flags)
        address = self.addresses[name] = f"127.0.0.1:{self.wires.open(name, server.link)}"
        server.flags += ("--advertise-addr", address, "--tag", f"host={name}")
        self.lab.programs.append(server)
        self.servers.append(server)
        Program.start(server)
        return server

    def start(self) -> None:
        """Start two servers, see that they wait for a third, and start that."""
        first = [self.launch(name, "--bootstrap-expect", "3") for name in ("s1", "s2")]
        for server in first:
            until(lambda server=server: reasons(server) == ["no server leads"], f"that {server.name} waits")
        self.refused = put(first[0], "refused")
        self.launch("s3", "--bootstrap-expect", "3")
        self.settle()

    def settle(self) -> None:
        """Wait until all is well."""
        for server in self.servers:
            until(server.ready, f"that {server.name} is well")
        for server in self.servers:
            until(lambda server=server: len(alive(server)) == len(self.servers), f"that {server.name} knows all")

    def close(self) -> None:
        self.lab.close()
        self.wires.close()

    def clear(self) -> None:
        """Have all servers run, and no jobs left from another test."""
        for server in self.servers:
            if server.process is None or server.process.poll() is not None:
                Program.start(server)
        self.settle()
        for job in sorted(self.servers[0].get("/v1/jobs").body, key=lambda job: not job["parent_job"]):
            assert self.servers[0].call("DELETE", f"/v1/jobs/{job['name']}").status == 200
        for server in self.servers:
            until(lambda server=server: not server.get("/v1/jobs").body, f"that {server.name} knows of no job")
        self.journal.unlink(missing_ok=True)

    def leader(self) -> Server:
        name = until(lambda: next(filter(None, map(leader_of, self.servers)), ""), "an election")
        return next(server for server in self.servers if server.name == name)

    def followers(self) -> list[Server]:
        leader = self.leader()
        return [server for server in self.servers if server is not leader]

    # --- work ---

    def work(self, server: Server, **fields: Any) -> None:
        """Have jobs run each second, each on one node."""
        command = f"echo $DKRON_JOB_NAME $DKRON_SCHEDULED_AT $(date +%s%N) >> {self.journal}"
        for number in range(JOBS):
            config = {"command": command, "shell": "true"}
            server.put(f"job{number}", schedule="* * * * * *", executor_config=config, **{"tags": {"server": "true:1"}, **fields})

    def ran(self) -> list[tuple[str, int, int]]:
        """Return what has run: job, due instant, and when it ran."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        rows = [line.split() for line in lines]
        return [(job, instant(due), int(at)) for job, due, at in rows]

    def runs_on(self, rounds: int = 3) -> None:
        """Wait until each job has run a few times more."""
        before = Counter(job for job, _, _ in self.ran())

        def further() -> bool:
            now = Counter(job for job, _, _ in self.ran())
            return all(now[f"job{number}"] >= before[f"job{number}"] + rounds for number in range(JOBS))

        until(further, f"{rounds} more runs of each job")

    def check(self, server: Server) -> float:
        """See that each due instant has run once and is on record once; return the latest start, in seconds."""
        for number in range(JOBS):
            server.call("POST", f"/v1/jobs/job{number}/toggle?disabled=true")
        until(lambda: not server.get("/v1/busy").body, "the end of what runs")
        latest = 0.0
        for number in range(JOBS):
            name = f"job{number}"
            dues = sorted(due for job, due, _ in self.ran() if job == name)
            assert dues == list(range(dues[0], dues[-1] + SECOND, SECOND)), f"{name}: missed or doubled"
            recorded = until(lambda name=name, dues=dues: records(server, name, dues), f"the records of {name}")
            assert {record["success"] for record in recorded} == {True}, recorded
            latest = max(latest, *(at - due for job, due, at in self.ran() if job == name))
        return latest / SECOND


def instant(text: str) -> int:
    """Return DKRON_SCHEDULED_AT in nanoseconds; these are whole seconds."""
    return int(time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone) * SECOND


def records(server: Server, job: str, dues: list[int]) -> list[dict[str, Any]]:
    found = server.executions(job)
    groups = sorted(int(record["group"]) for record in found)
    assert len(set(groups)) == len(groups), f"{job}: recorded twice"
    return found if groups == dues and not any(record["finished_at"].startswith("0001") for record in found) else []


def leader_of(server: Server) -> str:
    """Return who leads, as a server sees it."""
    with suppress(OSError):
        answer = server.get("/v1/leader")
        if answer.status == 200:
            return str(answer.body["Name"])
    return ""


def alive(server: Server) -> set[str]:
    return {member["Name"] for member in server.members() if member["statusText"] == "alive"}


def takeover(server: Server, former: Server) -> float:
    """Return after how many seconds a server knows another leader."""
    began = time.monotonic()
    until(lambda: leader_of(server) not in {"", former.name}, "the takeover")
    return time.monotonic() - began


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, etcd: Etcd) -> Iterator[Cluster]:
    lab = Lab(tmp_path_factory.mktemp("cluster"))
    cluster = Cluster(lab, etcd)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def cluster(servers: Cluster) -> Cluster:
    """All servers run, and there is no job."""
    servers.clear()
    return servers


# --- who leads ------------------------------------------------------------------------------------------------------------


def test_a_killed_leader_is_replaced_and_no_run_is_missed_or_doubled(cluster: Cluster) -> None:
    leader, (one, two) = cluster.leader(), cluster.followers()
    cluster.work(one)
    cluster.runs_on()
    leader.kill()
    took = takeover(one, leader)
    cluster.runs_on()
    Program.start(leader)
    until(leader.ready, "the restart")
    cluster.runs_on()
    latest = cluster.check(two)
    assert took < LEASE, "nobody waits for its lease to end"
    assert latest < 5


def test_a_server_that_is_told_to_stop_hands_over_first(cluster: Cluster) -> None:
    leader, (one, two) = cluster.leader(), cluster.followers()
    cluster.work(one)
    cluster.runs_on()
    assert leader.process is not None
    leader.process.send_signal(signal.SIGTERM)
    assert takeover(one, leader) < LEASE
    assert leader.process.wait(30) == 0
    assert leader_of(two) != leader.name
    until(lambda: leader.name not in alive(one), "that it is gone")
    cluster.runs_on()
    assert cluster.check(two) < 5


def test_a_second_server_of_a_name_goes_away(cluster: Cluster) -> None:
    leader = cluster.leader()
    terms = leader.output.count("this server leads, in term")
    cluster.work(leader)
    cluster.runs_on(1)
    flags = ("-server", "--http-addr", f"127.0.0.1:{free_port()}", "--bind-addr", f"127.0.0.1:{free_port()}")
    twin = Program(cluster.lab.folder, leader.name, *flags, *cluster.flags)
    twin.data_dir, twin.log = cluster.lab.folder / "twin", cluster.lab.folder / "twin.log"
    cluster.lab.programs.append(twin)
    twin.start()
    assert twin.process is not None
    assert twin.process.wait(30) != 0
    last, at = twin.output.splitlines()[-1], cluster.addresses[leader.name]
    assert f"another server is called {leader.name}, and answers at {at}: stop it, or give this one another --node-name" in last
    cluster.runs_on(1)
    assert {leader_of(server) for server in cluster.servers} == {leader.name}
    assert leader.output.count("this server leads, in term") == terms
    cluster.check(leader)


def test_a_cluster_begins_when_as_many_servers_are_there_as_it_expects(servers: Cluster) -> None:
    refused = servers.refused
    assert refused.status == 503
    assert "no server leads at the moment" in refused.body["error"]
    assert int(refused.headers["Retry-After"]) > 0
    assert len({leader_of(server) for server in servers.servers}) == 1


def reasons(server: Server) -> list[str]:
    """Return why a server is not ready."""
    with suppress(OSError):
        found: list[str] = server.get("/health").body["reasons"]
        return found
    return []


# --- what a follower does -------------------------------------------------------------------------------------------------


def test_a_follower_forwards_every_write_and_shows_it(cluster: Cluster) -> None:
    follower, other = cluster.followers()

    stored = follower.put("job", executor_config={"command": "sleep 60"}, tags={"server": "true:1"})
    assert follower.get("/v1/jobs/job").body == stored
    assert [job["name"] for job in follower.get("/v1/jobs").body] == ["job"]

    assert follower.call("POST", "/v1/jobs/job/toggle").body["disabled"] is True
    assert follower.get("/v1/jobs/job").body["disabled"] is True
    assert follower.call("POST", "/v1/jobs/job/toggle").body["disabled"] is False

    answer = follower.call("POST", "/v1/jobs/job/run", headers={"Idempotency-Key": "mine"})
    assert answer.status == 200
    run = answer.headers["X-Dkron-Run"]
    again = other.call("POST", "/v1/jobs/job/run", headers={"Idempotency-Key": "mine"})
    assert again.headers["X-Dkron-Run"] == run, "the key is known everywhere"
    execution = until(lambda: follower.get("/v1/busy").body, "the start")[0]

    assert follower.call("POST", f"/v1/jobs/job/executions/{execution['id']}/stop").status == 202
    assert len(follower.ended("job")) == 1

    assert follower.call("DELETE", "/v1/jobs/job/executions").status < 300
    assert follower.executions("job") == []
    assert follower.get("/v1/jobs/job").body["error_count"] == 0

    assert follower.call("DELETE", "/v1/jobs/job").status == 200
    assert follower.get("/v1/jobs/job").status == 404
    assert follower.get("/v1/jobs").body == []
    until(lambda: other.get("/v1/jobs").body == [], "that all see it")


def test_a_follower_passes_refusals_on(cluster: Cluster) -> None:
    follower = cluster.followers()[0]
    wrong = follower.call("POST", "/v1/jobs", {"name": "job", "schedule": "@manually", "executor": "shel"})
    assert (wrong.status, "did you mean shell?" in wrong.body["error"]) == (400, True)
    assert follower.call("DELETE", "/v1/jobs/job").status == 404
    follower.put("job", executor_config={"command": "true"})
    follower.put("child", parent_job="job", schedule="@manually", executor_config={"command": "true"})
    assert follower.call("DELETE", "/v1/jobs/job").status == 409


def test_a_run_can_be_waited_for_anywhere(cluster: Cluster) -> None:
    follower = cluster.followers()[0]
    follower.put("job", executor_config={"command": "true"}, tags={"server": "true:1"})
    answer = follower.call("POST", "/v1/jobs/job/run?wait")
    assert (answer.status, answer.headers["X-Dkron-Status"]) == (200, "succeeded")


# --- one hop --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["refuse", "hold"], ids=["closed", "silent"])
def test_an_agent_that_the_leader_does_not_hear_works_on(cluster: Cluster, mode: str) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]
    cluster.work(leader, tags={"host": follower.name})
    cluster.runs_on()
    cut = cluster.wires.cut([leader.name], path=LINK, mode=mode)
    try:
        cluster.runs_on(6)  # for longer than any lease
        known = leader.get("/v1/jobs/job0").body["success_count"]
        until(lambda: leader.get("/v1/jobs/job0").body["success_count"] > known + 2, "results, all the while")
        assert alive(leader) == {server.name for server in cluster.servers}
    finally:
        cut.heal()
    cluster.runs_on()
    assert cluster.leader() is leader
    assert cluster.check(leader) < 5


# --- the store ------------------------------------------------------------------------------------------------------------


def test_while_etcd_hangs_reads_go_on_and_writes_say_why_they_do_not(cluster: Cluster, etcd: Etcd) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]
    cluster.work(leader)
    cluster.runs_on()
    etcd.pause()
    began = time.monotonic()
    try:
        answers = [timed(server, number) for number in range(2) for server in (leader, follower)]
        while time.monotonic() < began + 10:
            for server in cluster.servers:
                assert len(server.get("/v1/jobs").body) == JOBS
        stale = {server.name: server.get("/v1/jobs").headers.get("X-Dkron-Stale") for server in cluster.servers}
        unready = [server for server in cluster.servers if not server.get("/health").body["ready"]]
    finally:
        etcd.resume()
    hung = time.monotonic() - began
    assert all(took < 15 for took, _ in answers), answers
    assert {answer.status for _, answer in answers} <= {503, 504}, answers
    assert all("store" in answer.body["error"] or "etcd" in answer.body["error"] for _, answer in answers), answers
    assert all(int(seconds or 0) > 2 for seconds in stale.values()), stale
    assert unready == cluster.servers

    for server in cluster.servers:
        until(server.ready, "that all is well")
    cluster.runs_on()
    again = until(lambda: [server for server in cluster.servers if put(server, "after").status == 201], "a write")
    assert again
    latest = cluster.check(cluster.leader())
    assert latest < hung + 10


def put(server: Server, name: str) -> Answer:
    return server.call(
        "POST", "/v1/jobs", {"name": name, "schedule": "@manually", "executor": "shell", "executor_config": {"command": "true"}}
    )


def timed(server: Server, number: int) -> tuple[float, Answer]:
    began = time.monotonic()
    answer = put(server, f"hung{number}")
    return time.monotonic() - began, answer
