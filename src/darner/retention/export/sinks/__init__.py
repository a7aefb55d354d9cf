"""The sinks: files, syslog, webhooks; and one in memory for tests."""

from darner.core.errors import InvalidInputError
from darner.retention.export.config import NDJSON, PLACE, SYSLOG, WEBHOOK, SinkConfig
from darner.retention.export.ports import Limits, Sink


def make_sink(config: SinkConfig) -> Sink:
    """The sink of a configuration that was checked. Raises InvalidInputError for files that it names and that cannot be used."""
    if config.kind == NDJSON:
        from darner.retention.export.sinks.ndjson import NdjsonSink

        return NdjsonSink(config, limits_of(config))
    if config.kind == SYSLOG:
        from darner.retention.export.sinks.syslog import SyslogSink

        return SyslogSink(config, limits_of(config))
    if config.kind == WEBHOOK:
        from darner.retention.export.sinks.webhook import WebhookSink

        return WebhookSink(config, limits_of(config))
    raise InvalidInputError(f"There is no sink of the kind {config.kind}.", field=PLACE)


def limits_of(config: SinkConfig) -> Limits:
    """What the configuration lets it take at once."""
    return Limits(documents=config.batch_jobs, batch_bytes=config.batch_size_bytes, document_bytes=config.record_limit)
