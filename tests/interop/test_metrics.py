"""The metrics are read by Prometheus' own tools: promtool, and the OpenMetrics parser of the Python client."""

import subprocess

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as prometheus_families
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from models import Base, customer
from stage import DEADLINE, Gateway

# What Prometheus 2 and 3 send.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROCESS = {
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
    "process_virtual_memory_bytes",
}


@pytest.fixture
def gateway(tmp_path, upstream):
    """A gateway that has served, refused and failed requests."""
    database = tmp_path / "auth.db"
    engine = create_engine(f"sqlite:///{database}")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(customer("ada@example.com", "ada-key"))
        session.commit()
    engine.dispose()
    gateway = Gateway(database, upstream)
    statuses = [gateway.get("ada-key").status, gateway.get("no-key").status, gateway.get("ada-key", "/status/503").status]
    assert statuses == [200, 401, 503]
    yield gateway
    gateway.stop()


def samples(families):
    """The value of each sample, by its name and labels."""
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def test_promtool_has_nothing_to_say_about_the_text_format(gateway):
    reply = gateway.metrics()
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    # In Debian's package prometheus.
    checked = subprocess.run(["promtool", "check", "metrics"], input=reply.body, capture_output=True, timeout=DEADLINE)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")

    read = samples(prometheus_families(reply.body.decode()))
    assert read["keytoll_requests_total", frozenset({("api", "weather"), ("status", "2xx")})] == 1
    assert read["keytoll_captures_total", frozenset()] == 1
    assert PROCESS <= {name for name, _ in read}


@pytest.mark.parametrize("accept", [PROMETHEUS_2, PROMETHEUS_3])
def test_a_prometheus_server_gets_openmetrics_with_the_same_samples(gateway, accept):
    reply = gateway.metrics(accept)
    assert reply.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert reply.headers["Vary"].lower() == "accept"
    families = list(text_string_to_metric_families(reply.body.decode()))
    kinds = {family.name: family.type for family in families}
    assert (kinds["keytoll_build"], kinds["keytoll_captures"], kinds["process_cpu_seconds"]) == (
        "info",
        "counter",
        "counter",
    )
    text = samples(prometheus_families(gateway.metrics().body.decode()))
    assert samples(families).keys() == text.keys()
