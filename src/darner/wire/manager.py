"""Codecs of manager.v2: schedulers and their cluster, who asks for them, how they register, applications.

Flows in and out: values of core. Refuses nothing: an unreadable list of features reads as none, unknown priorities pass.
"""

import json

from dragonfly_api import manager_pb2

from darner.core.fleet import ApplicationInfo, ClusterInfo, SchedulerInfo, SchedulerQuery


def scheduler_to_pb(scheduler: SchedulerInfo) -> manager_pb2.Scheduler:
    """A Scheduler message. Without a cluster upstream's daemons refuse the whole list, so a manager must give one."""
    return manager_pb2.Scheduler(
        id=scheduler.id,
        hostname=scheduler.hostname,
        idc=scheduler.idc or None,
        location=scheduler.location or None,
        ip=scheduler.ip,
        port=scheduler.port,
        state=scheduler.state,
        scheduler_cluster_id=scheduler.scheduler_cluster_id,
        scheduler_cluster=None if scheduler.cluster is None else cluster_to_pb(scheduler.cluster),
        features=json.dumps(list(scheduler.features)).encode(),
    )


def scheduler_from_pb(message: manager_pb2.Scheduler) -> SchedulerInfo:
    """The value of a Scheduler message."""
    return SchedulerInfo(
        id=message.id,
        hostname=message.hostname,
        ip=message.ip,
        port=message.port,
        scheduler_cluster_id=message.scheduler_cluster_id,
        state=message.state,
        idc=message.idc,
        location=message.location,
        features=_features(message.features),
        cluster=cluster_from_pb(message.scheduler_cluster) if message.HasField("scheduler_cluster") else None,
    )


def _features(text: bytes) -> tuple[str, ...]:
    try:
        names = json.loads(text or b"[]")
    except ValueError:
        return ()
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def cluster_to_pb(cluster: ClusterInfo) -> manager_pb2.SchedulerCluster:
    """A SchedulerCluster message; the configs pass as they are."""
    return manager_pb2.SchedulerCluster(
        id=cluster.id,
        name=cluster.name,
        bio=cluster.bio,
        config=cluster.config,
        client_config=cluster.client_config,
        scopes=cluster.scopes,
        seed_client_config=cluster.seed_client_config,
    )


def cluster_from_pb(message: manager_pb2.SchedulerCluster) -> ClusterInfo:
    """The value of a SchedulerCluster message."""
    return ClusterInfo(
        id=message.id,
        name=message.name,
        bio=message.bio,
        config=message.config,
        client_config=message.client_config,
        scopes=message.scopes,
        seed_client_config=message.seed_client_config,
    )


def query_to_pb(query: SchedulerQuery) -> manager_pb2.ListSchedulersRequest:
    """A ListSchedulersRequest."""
    return manager_pb2.ListSchedulersRequest(
        source_type=manager_pb2.SEED_PEER_SOURCE if query.seed else manager_pb2.PEER_SOURCE,
        hostname=query.hostname,
        ip=query.ip,
        idc=query.idc or None,
        location=query.location or None,
        version=query.version,
        scheduler_cluster_id=query.scheduler_cluster_id,
    )


def query_from_pb(message: manager_pb2.ListSchedulersRequest) -> SchedulerQuery:
    """The value of a ListSchedulersRequest; every source that is no seed counts as an ordinary peer."""
    return SchedulerQuery(
        hostname=message.hostname,
        ip=message.ip,
        seed=message.source_type == manager_pb2.SEED_PEER_SOURCE,
        idc=message.idc,
        location=message.location,
        version=message.version,
        scheduler_cluster_id=message.scheduler_cluster_id,
    )


def update_to_pb(scheduler: SchedulerInfo, config: bytes) -> manager_pb2.UpdateSchedulerRequest:
    """An UpdateSchedulerRequest: this scheduler exists, with that config (JSON bytes). Its id is the manager's to give."""
    return manager_pb2.UpdateSchedulerRequest(
        source_type=manager_pb2.SCHEDULER_SOURCE,
        hostname=scheduler.hostname,
        scheduler_cluster_id=scheduler.scheduler_cluster_id,
        idc=scheduler.idc or None,
        location=scheduler.location or None,
        ip=scheduler.ip,
        port=scheduler.port,
        features=scheduler.features,
        config=config,
    )


def update_from_pb(message: manager_pb2.UpdateSchedulerRequest) -> tuple[SchedulerInfo, bytes]:
    """The scheduler and its config of an UpdateSchedulerRequest; the id is 0 until the manager gives one."""
    scheduler = SchedulerInfo(
        id=0,
        hostname=message.hostname,
        ip=message.ip,
        port=message.port,
        scheduler_cluster_id=message.scheduler_cluster_id,
        idc=message.idc,
        location=message.location,
        features=tuple(message.features),
    )
    return scheduler, message.config


def application_to_pb(application: ApplicationInfo) -> manager_pb2.Application:
    """An Application message."""
    urls = [manager_pb2.URLPriority(regex=regex, value=value) for regex, value in application.urls]  # type: ignore[arg-type]
    return manager_pb2.Application(
        id=application.id,
        name=application.name,
        url=application.url,
        bio=application.bio,
        priority=manager_pb2.ApplicationPriority(value=application.priority, urls=urls),  # type: ignore[arg-type]
    )


def application_from_pb(message: manager_pb2.Application) -> ApplicationInfo:
    """The value of an Application message."""
    return ApplicationInfo(
        id=message.id,
        name=message.name,
        url=message.url,
        bio=message.bio,
        priority=message.priority.value,
        urls=tuple((entry.regex, entry.value) for entry in message.priority.urls),
    )
