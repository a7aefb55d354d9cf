"""Jobs, parts and timeline as JSON: upstream's shape (manager.md, sections 6.7 and 2) and Darner's own fields beside it.

Times are RFC 3339 with `Z`. Lists never hold null. `state` has upstream's three words; `detail_state` tells the truth in full.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from darner.core.host import HostType
from darner.core.job import END_STATES, DetailState, JobType, PartState, State, Tier, state_of
from darner.core.work import HostResult, HostState, hosts_to_json
from darner.jobs.events import Job, Part, TimelineEvent
from darner.jobs.state import Tally, fold, reason
from darner.kit.moments import rfc3339

RESULT_TTL_S = 86_400
MAX_RESULT_HOSTS = 5_000


def job_json(
    job: Job,
    *,
    args: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] | None = None,
    clusters: Sequence[Mapping[str, Any]] = (),
    retention: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One job. Lists leave out result and clusters."""
    upstream = {
        "id": job.id,
        "created_at": rfc3339(job.created_at),
        "updated_at": rfc3339(job.updated_at),
        "is_del": int(job.tier == Tier.DELETED),
        "task_id": f"group_{job.uuid}",
        "bio": job.bio,
        "type": job.type,
        "state": state_of(job.state),
        "args": dict(args or {}),
        "result": result,
        "user_id": 0,
        "user": {"name": job.owner} if job.owner else {},
        "seed_peer_clusters": [],
        "scheduler_clusters": list(clusters),
    }
    return {**upstream, **_own_json(job), "retention": retention}


def _own_json(job: Job) -> dict[str, Any]:
    return {
        "uuid": job.uuid,
        "detail_state": job.state,
        "owner": job.owner,
        "summary": job.summary,
        "error": job.error,
        "started_at": rfc3339(job.started_at),
        "finished_at": rfc3339(job.finished_at),
        "deadline_at": rfc3339(job.deadline_at),
        "cluster_count": job.cluster_count,
        "part_count": job.part_count,
        "part_done": job.part_done,
        "part_failed": job.part_failed,
        "bytes_total": job.bytes_total,
        "bytes_done": job.bytes_done,
        "tag": job.tag,
        "application": job.application,
        "priority": job.priority,
        "labels": dict(job.labels),
        "importance": job.importance.word,
        "tier": job.tier.word,
        "held": job.held,
        "hold_reason": job.hold_reason,
    }


def part_json(part: Part) -> dict[str, Any]:
    """One part with its hosts."""
    return {
        "id": part.id,
        "job_id": part.job_id,
        "cluster_id": part.cluster_id,
        "url": part.url,
        "digest": part.digest,
        "size_bytes": part.size_bytes,
        "target_count": part.target_count,
        "state": part.state,
        "attempts": part.attempts,
        "worker": part.lease_holder,
        "bytes_done": part.bytes_done,
        "piece_count": part.piece_count,
        "pieces_done": part.pieces_done,
        "error": part.error,
        "verified": part.verified,
        "hosts": hosts_to_json(part.hosts),
        "created_at": rfc3339(part.created_at),
        "started_at": rfc3339(part.started_at),
        "finished_at": rfc3339(part.finished_at),
        "updated_at": rfc3339(part.updated_at),
        "not_before": rfc3339(part.not_before),
    }


def event_json(event: TimelineEvent) -> dict[str, Any]:
    """One line of a timeline."""
    return {
        "id": event.id,
        "job_id": event.job_id,
        "part_id": event.part_id,
        "at": rfc3339(event.at),
        "kind": event.kind,
        "message": event.message,
    }


def result_json(job: Job, parts: Iterable[Part]) -> dict[str, Any]:
    """Upstream's `result`, one entry of `job_states` per cluster. A job that failed without parts still names its reason."""
    by_cluster: dict[int, list[Part]] = {}
    for part in parts:
        by_cluster.setdefault(part.cluster_id, []).append(part)
    states = [_cluster_json(job, cluster_id, kept) for cluster_id, kept in sorted(by_cluster.items())]
    if not states and job.state in END_STATES:
        states = [_state_entry(job, suffix="plan", state=state_of(job.state), error=job.error, results=[])]
    return {
        "group_uuid": f"group_{job.uuid}",
        "state": state_of(job.state),
        "created_at": rfc3339(job.created_at),
        "updated_at": rfc3339(job.updated_at),
        "job_states": states,
    }


def _state_entry(job: Job, *, suffix: str, state: State, error: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "task_uuid": f"task_{job.uuid}_{suffix}",
        "task_name": job.type,
        "state": state,
        "error": error,
        "created_at": rfc3339(job.created_at),
        "ttl": RESULT_TTL_S,
        "results": results,
    }


def _cluster_json(job: Job, cluster_id: int, parts: list[Part]) -> dict[str, Any]:
    detail = fold(DetailState.QUEUED, Tally.of(parts))
    errors: dict[str, int] = {}
    for part in parts:
        if part.error and part.state not in {PartState.SUCCEEDED, PartState.WAITING, PartState.LEASED}:
            errors[part.error] = errors.get(part.error, 0) + 1
    error = reason(detail, len(parts), errors) if detail in END_STATES else ""
    body = _lists_json(job.type, parts)
    return _state_entry(
        job, suffix=str(cluster_id), state=state_of(detail), error=error, results=[{**body, "scheduler_cluster_id": cluster_id}]
    )


def _lists_json(kind: str, parts: list[Part]) -> dict[str, Any]:
    good = [(part, host) for part in parts for host in part.hosts if host.state == HostState.SUCCEEDED]
    bad = [(part, host) for part in parts for host in part.hosts if host.state == HostState.FAILED]
    if kind == JobType.GET_TASK:
        return {"peers": [_peer(part, host) for part, host in good if host.bytes_done or host.verified][:MAX_RESULT_HOSTS]}
    success = [_task(kind, part, host) for part, host in good]
    failure = [{**_task(kind, part, host), "description": host.error} for part, host in bad]
    nameless = [
        part for part in parts if part.error and part.finished_at and all(host.state != HostState.FAILED for host in part.hosts)
    ]
    failure += [{"url": part.url, "hostname": "", "ip": "", "description": part.error} for part in nameless]
    shown = {"success_tasks": success[:MAX_RESULT_HOSTS], "failure_tasks": failure[:MAX_RESULT_HOSTS]}
    return {**shown, "truncated": True} if max(len(success), len(failure)) > MAX_RESULT_HOSTS else shown


def _task(kind: str, part: Part, host: HostResult) -> dict[str, Any]:
    if kind == JobType.DELETE_TASK:
        return {"hostname": host.hostname, "ip": host.ip, "host_type": _type_of(host)}
    return {"url": part.url, "hostname": host.hostname, "ip": host.ip, "verified": host.verified}


def _peer(part: Part, host: HostResult) -> dict[str, Any]:
    times = {"created_at": rfc3339(part.updated_at), "updated_at": rfc3339(part.updated_at)}
    return {
        "id": host.host_id,
        "hostname": host.hostname,
        "ip": host.ip,
        "host_type": _type_of(host),
        "IsFinished": host.verified,
        **times,
    }


def _type_of(host: HostResult) -> str:
    return "super" if host.seed else HostType.NORMAL.name.lower()
