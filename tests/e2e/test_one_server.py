"""One server and its agents, as a user runs them: jobs with real commands, real deaths, and what is left of both."""

from __future__ import annotations

import http.server
import resource
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
from e2e.conftest import Lab, Program, Server, free_port, until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(150)]


class Web(http.server.BaseHTTPRequestHandler):
    """Answers every request, and remembers it."""

    seen: ClassVar[list[tuple[str, dict[str, str]]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, dict(self.headers)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"served " + self.path.encode())

    def log_message(self, *_words: object) -> None:
        return


@pytest.fixture
def web() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def given() -> Iterator[int]:
    """Be a shell with a limit of open files that is lower than it may be."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, limits[1]))
    yield 500
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def of_the_job(marker: str) -> list[psutil.Process]:
    """Processes whose command line holds the marker."""
    found = []
    for process in psutil.process_iter():
        try:
            if marker in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


class TestMain:
    def test_jobs_run_on_agents_chosen_by_tags_and_count_and_their_responses_are_kept(self, lab: Lab, web: str) -> None:
        server = lab.server()
        for number in range(3):
            lab.agent(server, f"web{number}", "--tag", "role=web")
        server.put(
            "one",
            schedule="* * * * * *",
            tags={"role": "web:1"},
            executor_config={"command": "echo on $DKRON_JOB_NAME", "shell": "true"},
        )
        server.put("all", tags={"role": "web"}, executor_config={"command": "sh -c 'echo out; echo err >&2; exit 3'"})
        server.put("call", executor="http", tags={"role": "web:2"}, executor_config={"method": "GET", "url": f"{web}/path"})
        server.run("all")
        server.run("call")
        assert {e["node_name"] for e in server.ended("all", 3)} == {"web0", "web1", "web2"}
        assert all(not e["success"] and e["output"] == "exit status 3\nout\nerr\n" for e in server.ended("all", 3))
        called = server.ended("call", 2)
        assert len({e["node_name"] for e in called}) == 2
        assert {e["output"] for e in called} == {"served /path"}
        assert {headers["X-Dkron-Job"] for path, headers in Web.seen if path == "/path"} == {"call"}
        ticks = server.ended("one", 4)
        groups = [e["group"] for e in server.executions("one")]
        assert len(set(groups)) == len(groups)
        assert {newer - older for newer, older in pairwise(groups)} == {10**9}
        assert {e["output"] for e in ticks} == {"on one\n"}
        assert server.get("/v1/jobs/all").body["status"] == "failed"
        assert server.get("/v1/jobs/call").body["success_count"] == 2
        assert "served /path" in server.cli("logs", "call").stdout
        assert server.cli("executions", "one", "--json").returncode == 0

    def test_the_server_is_an_agent_too_and_ends_in_order(self, lab: Lab) -> None:
        server = lab.server()
        server.put("here", tags={"server": "true:1"}, executor_config={"command": "sleep 3"})
        server.run("here")
        until(lambda: server.get("/v1/busy").body, "the start")
        assert server.stop() == 0
        until(lambda: not server.family(), "the end of all that it has started")
        server.start()
        (ended,) = server.ended("here")
        assert ended["success"]

    def test_a_stop_kills_the_whole_group_and_says_by_whom(self, lab: Lab) -> None:
        server = lab.server()
        server.put("long", executor_config={"command": "sleep 300.125 & sleep 300.125; wait", "shell": "true"})
        server.run("long")
        (busy,) = until(lambda: server.get("/v1/busy").body, "the start")
        until(lambda: len(of_the_job("300.125")) >= 2, "both sleeps")
        answer = server.call("POST", f"/v1/jobs/long/executions/{busy['id']}/stop")
        assert answer.status == 202
        (ended,) = server.ended("long")
        assert ended["status"] == "stopped"
        assert ended["stopped_by"]
        assert of_the_job("300.125") == []

    def test_a_timeout_ends_any_executor(self, lab: Lab) -> None:
        server = lab.server()
        server.put("slow", timeout="500ms", executor_config={"command": "sleep 300.25"})
        server.run("slow")
        (ended,) = server.ended("slow")
        assert ended["status"] == "failed"
        assert "timeout" in ended["output"]
        assert of_the_job("300.25") == []

    def test_a_job_may_open_as_many_files_as_the_program_was_given(self, lab: Lab, given: int) -> None:
        server = lab.server()
        server.put("ask", executor_config={"command": "ulimit -Sn", "shell": "true"})
        server.run("ask")
        (ended,) = server.ended("ask")
        assert ended["output"] == f"{given}\n"

    def test_a_demand_that_is_repeated_runs_once(self, lab: Lab) -> None:
        server = lab.server()
        server.put("once", executor_config={"command": "true"})
        runs = {
            server.call("POST", "/v1/jobs/once/run", headers={"Idempotency-Key": "k"}).headers["X-Dkron-Run"] for _ in range(3)
        }
        assert len(runs) == 1
        server.ended("once")
        assert server.call("POST", "/v1/jobs/once/run", headers={"Idempotency-Key": "k"}).headers["X-Dkron-Run"] in runs
        assert len(server.executions("once")) == 1


class TestDeaths:
    def test_a_killed_worker_leaves_no_process_and_no_taken_slot(self, lab: Lab) -> None:
        server = lab.server()
        server.put(
            "slot",
            concurrency="forbid",
            schedule="*/2 * * * * *",
            executor_config={"command": "sleep 300.5 & sleep 300.5", "shell": "true"},
        )
        until(lambda: len(of_the_job("300.5")) >= 2, "the start")
        (worker,) = [p for p in psutil.Process(server.pid).children() if "dkron.agent" in " ".join(p.cmdline())]
        first = [process.pid for process in of_the_job("300.5")]
        worker.kill()
        until(lambda: not any(psutil.pid_exists(pid) for pid in first), "the end of its jobs")
        (lost,) = until(lambda: [e for e in server.executions("slot") if e["status"] == "lost"], "the loss")
        assert "died" in lost["reason"]
        until(lambda: of_the_job("300.5"), "the next run: the worker is back, and the slot is free")

    def test_a_killed_server_loses_nothing(self, lab: Lab, tmp_path: Path) -> None:
        server = lab.server()
        agent = lab.agent(server, "web", "--tag", "role=web")
        effects = tmp_path / "effects"
        server.put(
            "tick",
            schedule="* * * * * *",
            tags={"role": "web:1"},
            executor_config={"command": f"echo $DKRON_SCHEDULED_AT >> {effects}", "shell": "true"},
        )
        dead, end = tmp_path / "dead", tmp_path / "end"
        command = f"until [ -e {dead} ]; do sleep 0.1; done; sleep 3; echo done; touch {end}"
        server.put("long", tags={"role": "web:1"}, executor_config={"command": command, "shell": "true"})
        server.ended("tick", 2)
        server.run("long")
        until(lambda: [e for e in server.get("/v1/busy").body if e["job_name"] == "long"], "the start")
        server.kill()
        dead.touch()
        until(end.exists, "the end without a server")
        server.start()
        (long,) = server.ended("long")
        assert long["output"] == "done\n"

        def none_is_missing() -> bool:
            seconds = sorted(int(e["group"]) // 10**9 for e in server.ended("tick", 8))
            return seconds == list(range(seconds[0], seconds[-1] + 1))

        until(none_is_missing, "the end of each run that is due before others that have ended")
        instants = effects.read_text().splitlines()
        assert len(set(instants)) == len(instants)
        assert agent.process is not None
        assert agent.process.poll() is None

    def test_the_worker_beside_a_killed_server_goes_on(self, lab: Lab) -> None:
        server = lab.server()
        server.put("long", tags={"server": "true:1"}, executor_config={"command": "sleep 3; echo done", "shell": "true"})
        server.run("long")
        until(lambda: server.get("/v1/busy").body, "the start")
        (worker,) = [p for p in psutil.Process(server.pid).children() if "dkron.agent" in " ".join(p.cmdline())]
        server.kill()
        server.start()
        (ended,) = server.ended("long")
        assert ended["output"] == "done\n"
        assert worker.is_running()

    def test_members_leave_fail_and_come_back(self, lab: Lab) -> None:
        server = lab.server()
        leaver, victim = lab.agent(server, "leaver"), lab.agent(server, "victim")
        leaver.stop()
        until(lambda: server.status_of("leaver") == "left", "leaving")
        victim.kill()
        until(lambda: server.status_of("victim") == "failed", "failing")
        victim.start()
        until(lambda: server.status_of("victim") == "alive", "coming back")

    def test_a_second_agent_of_that_name_is_refused(self, lab: Lab) -> None:
        server = lab.server()
        lab.agent(server, "twin")
        other = lab.folder / "other"
        other.mkdir()
        twin = Lab(other).agent(server, "twin", "--data-dir", str(other / "twin"))
        until(lambda: "another agent is called twin" in twin.output, "the refusal")
        twin.kill()


class TestDoors:
    def test_links_beyond_this_machine_need_a_key_or_a_word(self, lab: Lab) -> None:
        port = free_port()
        for flags in (["-server", "--bind-addr", f"0.0.0.0:{port}"], ["--join", "10.1.2.3"]):
            said = Server(lab.folder, "x").cli("agent", *flags)
            assert said.returncode == 2
            assert "--insecure" in said.stderr
            assert "keygen" in said.stderr
            assert "Traceback" not in said.stderr

    def test_a_wrong_key_is_refused_and_a_right_one_is_not(self, lab: Lab) -> None:
        key = Server(lab.folder, "x").cli("keygen").stdout.strip()
        other = Server(lab.folder, "x").cli("keygen").stdout.strip()
        server = lab.server("s1", "--encrypt", key)
        lab.agent(server, "friend", "--encrypt", key)
        stranger = Lab(lab.folder)
        agent = stranger.programs
        program = Program(lab.folder, "stranger", "--join", f"127.0.0.1:{server.link}", "--encrypt", other)
        agent.append(program.start())
        until(lambda: "key" in program.output, "the refusal")
        assert server.status_of("stranger") == ""
        program.stop()

    def test_bad_flags_are_one_line(self, lab: Lab) -> None:
        said = Server(lab.folder, "x").cli("agent", "--bind-addr", "nowhere:port")
        assert said.returncode == 2
        assert "bind-addr" in said.stderr
        assert len(said.stderr.strip().splitlines()) <= 3


def test_a_port_that_is_taken_is_a_sentence(lab: Lab) -> None:
    server = lab.server()
    second = Server(lab.folder, "s2")
    said = second.cli(
        "agent",
        "-server",
        "--http-addr",
        f"127.0.0.1:{server.http}",
        "--bind-addr",
        f"127.0.0.1:{second.link}",
        "--data-dir",
        "d2",
    )
    assert said.returncode != 0
    assert "http-addr" in said.stderr
    assert "Traceback" not in said.stderr
