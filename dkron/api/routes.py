"""Every route of the API, once: the router, `/openapi.json` and the test of `docs/api.md` are made from this table."""

from __future__ import annotations

from typing import Any, Final

from dkron.api import cluster, executions, jobs, openapi
from dkron.api.bodies import JobBody
from dkron.api.index import SORTS
from dkron.api.params import STATUSES
from dkron.api.replies import ExecutionReply, HealthReply, JobReply, MemberReply, Problem, StatusReply
from dkron.api.route import Parameter, Reply, Route

#: What each header of a reply says.
HEADERS: Final = {
    "Location": "Where the job is; after a run or a toggle, the address of the request.",
    "Warning": "What looks like a mistake: keys that mean nothing, a job that runs nowhere, on every node or never.",
    "X-Dkron-Run": "The id of the run that was started; its executions carry it as `run`.",
    "X-Dkron-Status": "How the run ended: the status that its executions share, or `partially_failed`.",
    "X-Dkron-Targets": "On how many nodes the job would run now.",
    "X-Total-Count": "How many there are, before paging.",
}

_FLAG: Final = {"type": "string"}
_INTEGER: Final = {"type": "integer"}
_PRETTY: Final = Parameter("pretty", "Indent the reply; the value does not matter.", _FLAG)
_START: Final = Parameter("_start", "Leave out that many from the beginning.", _INTEGER)
_END: Final = Parameter("_end", "Stop before this one, counted from 0.", _INTEGER)
_KEY: Final = Parameter(
    "Idempotency-Key",
    "Your name for this request: sent again, it starts no second run.",
    {"type": "string", "pattern": "^[!-~]{1,200}$"},
    "header",
)
_USER: Final = Parameter(
    "X-Dkron-User", "Who stops it, for the record.", {"type": "string", "pattern": "^[!-~]{1,200}$"}, "header"
)
_LISTING: Final = (
    Parameter("_sort", "The key to sort by; `name` unless said.", {"enum": list(SORTS)}),
    Parameter("_order", "`DESC` descends, anything else ascends.", {"enum": ["ASC", "DESC"]}),
    _START,
    _END,
    Parameter("q", "Only jobs with this in their name or display name."),
    Parameter("status", "Only jobs with this status; `untriggered` for those that never ran.", {"enum": list(STATUSES)}),
    Parameter("disabled", "Only jobs that are (`true`) or are not (`false`) disabled.", {"enum": ["true", "false"]}),
    Parameter("metadata", "`metadata[key]=value`: only jobs with all of these pairs.", {"type": "object"}),
    _PRETTY,
)
_HISTORY: Final = (
    Parameter("_sort", "The key to sort by; the time of start unless said.", {"enum": list(executions.SORTS)}),
    Parameter("_order", "`DESC`, newest first, unless said; anything else ascends.", {"enum": ["ASC", "DESC"]}),
    _START,
    _END,
    Parameter("run", "Only the executions of this run, named as `X-Dkron-Run` did."),
    Parameter("wait", "With `run`: answer when that is over, or after this duration (an hour unless said)."),
    Parameter("output_size_limit", "Show only the last bytes of each output; 0 for none.", {"type": "integer", "minimum": 0}),
    _PRETTY,
)
_RUN_PARAMETERS: Final = (
    Parameter("wait", "Answer when the run is over, or after this duration (an hour unless said) with 202."),
    _KEY,
    _PRETTY,
)
_WRITE_PARAMETERS: Final = (Parameter("runoncreate", "Run the job now as well; the value does not matter.", _FLAG), _KEY, _PRETTY)

_INVALID: Final = Reply("A field or parameter that cannot be right; the sentence names it.", Problem)
_NO_JOB: Final = Reply("There is no such job.", Problem)
_NO_EXECUTION: Final = Reply("There is no such job or execution.", Problem)
_CONFLICT: Final = Reply("Not in the present state; the sentence says why.", Problem)
_WRITES: Final = {
    201: Reply("The job as it is stored.", JobReply, ("Location", "Warning", "X-Dkron-Run", "X-Dkron-Targets")),
    400: _INVALID,
    404: Reply("There is no job like its `parent_job`.", Problem),
    409: _CONFLICT,
    413: Reply("The body is too large.", Problem),
}
_RUNS: Final = {
    200: Reply("The job. The run is durable.", JobReply, ("Location", "X-Dkron-Run", "X-Dkron-Status")),
    202: Reply("The job. The run is durable, but was not over in time.", JobReply, ("Location", "X-Dkron-Run")),
    400: _INVALID,
    404: _NO_JOB,
    409: _CONFLICT,
}

ROUTES: Final = (
    Route("GET", "/v1", cluster.show_status, {200: Reply("This server.", StatusReply)}, (_PRETTY,)),
    Route("GET", "/v1/", cluster.show_status, {200: Reply("This server.", StatusReply)}, (_PRETTY,)),
    Route(
        "GET",
        "/v1/members",
        cluster.list_members,
        {200: Reply("All nodes, sorted by name.", list[MemberReply], ("X-Total-Count",))},
        (_PRETTY,),
    ),
    Route(
        "GET",
        "/v1/leader",
        cluster.show_leader,
        {200: Reply("The leader.", MemberReply), 500: Reply("No server leads at the moment.", Problem)},
        (_PRETTY,),
    ),
    Route(
        "GET",
        "/v1/isleader",
        cluster.is_leader,
        {200: Reply("It leads.", str), 404: Reply("It does not.", str)},
        (_PRETTY,),
    ),
    Route("POST", "/v1/leave", cluster.leave, {200: Reply("It leaves.", dict[str, Any])}, (_PRETTY,)),
    Route(
        "GET",
        "/v1/busy",
        executions.list_busy,
        {200: Reply("What runs now, oldest first, in UTC.", list[ExecutionReply], ("X-Total-Count",))},
        (_PRETTY,),
    ),
    Route(
        "GET",
        "/v1/jobs",
        jobs.list_jobs,
        {200: Reply("The jobs.", list[JobReply], ("X-Total-Count",)), 400: _INVALID},
        _LISTING,
    ),
    Route("POST", "/v1/jobs", jobs.post_job, _WRITES, _WRITE_PARAMETERS, JobBody),
    Route("PATCH", "/v1/jobs", jobs.post_job, _WRITES, _WRITE_PARAMETERS, JobBody),
    Route("PUT", "/v1/jobs/{job}", jobs.put_job, _WRITES, _WRITE_PARAMETERS, JobBody),
    Route(
        "GET",
        "/v1/jobs/{job}",
        jobs.show_job,
        {200: Reply("The job.", JobReply, ("X-Dkron-Targets",)), 404: _NO_JOB},
        (_PRETTY,),
    ),
    Route(
        "DELETE",
        "/v1/jobs/{job}",
        jobs.delete_job,
        {
            200: Reply("The job as it was.", JobReply),
            404: _NO_JOB,
            409: Reply("Other jobs have it as their parent.", Problem),
        },
        (_PRETTY,),
    ),
    Route("POST", "/v1/jobs/{job}", jobs.run_job, _RUNS, _RUN_PARAMETERS),
    Route("POST", "/v1/jobs/{job}/run", jobs.run_job, _RUNS, _RUN_PARAMETERS),
    Route(
        "POST",
        "/v1/jobs/{job}/toggle",
        jobs.toggle_job,
        {200: Reply("The job.", JobReply, ("Location",)), 400: _INVALID, 404: _NO_JOB},
        (Parameter("disabled", "Set it rather than flip it.", {"enum": ["true", "false"]}), _PRETTY),
    ),
    Route(
        "GET",
        "/v1/jobs/{job}/executions",
        executions.list_executions,
        {
            200: Reply("The executions, in the job's time zone.", list[ExecutionReply], ("X-Total-Count", "X-Dkron-Status")),
            400: _INVALID,
            404: Reply("There is no such job, or no such run to wait for.", Problem),
        },
        _HISTORY,
    ),
    Route(
        "DELETE",
        "/v1/jobs/{job}/executions",
        executions.delete_executions,
        {200: Reply("The job, with its counters reset.", JobReply), 404: _NO_JOB},
        (_PRETTY,),
    ),
    Route(
        "GET",
        "/v1/jobs/{job}/executions/{execution}",
        executions.show_execution,
        {200: Reply("The execution, in UTC, with all of its output.", ExecutionReply), 404: _NO_EXECUTION},
        (_PRETTY,),
    ),
    Route(
        "POST",
        "/v1/jobs/{job}/executions/{execution}/stop",
        executions.stop_execution,
        {
            202: Reply("The execution as it stands; its end will follow.", ExecutionReply),
            400: _INVALID,
            404: _NO_EXECUTION,
            409: Reply("It is over already.", Problem),
        },
        (_USER, _PRETTY),
    ),
    Route("GET", "/health", cluster.show_health, {200: Reply("How this server is.", HealthReply)}),
    Route(
        "GET",
        "/health/live",
        cluster.show_live,
        {200: Reply("It is alive.", HealthReply), 503: Reply("It is not.", HealthReply)},
    ),
    Route(
        "GET",
        "/health/ready",
        cluster.show_ready,
        {200: Reply("It could take and decide a job now.", HealthReply), 503: Reply("It could not; why.", HealthReply)},
    ),
    Route("GET", "/openapi.json", openapi.show_document, {200: Reply("This document.", dict[str, Any])}, (_PRETTY,)),
)
