"""Settings of the jobs room, manager's side (`JobsConfig`) and worker's side (`WorkerConfig`)."""

from dataclasses import dataclass

from darner.kit.config import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsConfig:
    """How the manager plans and hands out work."""

    default_timeout_s: float = setting(3600.0, "Deadline of a job whose request names none.", unit="duration")
    max_timeout_s: float = setting(7 * 86400.0, "The longest deadline a request may ask for.", unit="duration")
    lease_s: float = setting(15.0, "A part whose worker is silent for that long goes to another worker.", unit="duration")
    max_attempts: int = setting(5, "How often a part is handed out before it fails for good.")
    patience_s: float = setting(
        45.0, "A part is not given up sooner than that only because hosts do not answer: they may be starting.", unit="duration"
    )
    retry_first_s: float = setting(1.0, "Wait before a part is handed out again; doubles every time.", unit="duration")
    retry_cap_s: float = setting(30.0, "The longest wait before a part is handed out again.", unit="duration")
    tick_s: float = setting(0.5, "How often lost leases, deadlines and other managers' changes are looked for.", unit="duration")
    long_poll_s: float = setting(20.0, "How long a worker's question for work is kept open.", unit="duration")
    plan_attempts: int = setting(4, "How often a registry that does not answer is asked before the job fails.")
    plan_concurrency: int = setting(4, "How many manifests are resolved at the same time.")
    max_parts: int = setting(20_000, "The most parts (contents × clusters) one job may have.")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """How a worker carries parts out."""

    name: str = setting("", "The worker's name in the timeline; empty = host name and process id.")
    cluster_id: int = setting(1, "The cluster whose parts it carries out.")
    max_parts: int = setting(16, "How many parts it carries out at the same time.")
    progress_interval_s: float = setting(1.0, "The shortest time between two progress messages of a part.", unit="duration")
    hosts_interval_s: float = setting(10.0, "How often it tells the manager which hosts its scheduler knows.", unit="duration")
    hosts_wait_s: float = setting(30.0, "How long it waits for a host that fits the scope to appear.", unit="duration")
    settle_s: float = setting(3.0, "Shortly after a start: how long the list of hosts must have been the same.", unit="duration")
    young_s: float = setting(15.0, "How long a worker counts as just started.", unit="duration")
    host_attempts: int = setting(2, "How often a host is asked before the part is given back.")
    host_retry_s: float = setting(1.0, "Wait before a host is asked again; doubles every time.", unit="duration")
    silence_s: float = setting(300.0, "A host that sends nothing for that long counts as failed.", unit="duration")
