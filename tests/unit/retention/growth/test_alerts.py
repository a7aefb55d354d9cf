import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from darner.retention.growth.meters import GrowthMeters
from darner.retention.meters import SweepMeters

FILE = Path(__file__).parents[4] / "deploy/prometheus/alerts.yaml"
RULES: list[dict[str, Any]] = [rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]]


def known() -> set[str]:
    told = b"".join(generate_latest(meters.registry) for meters in (GrowthMeters(), SweepMeters())).decode()
    return {
        name + ("_total" if kind == "counter" and not name.endswith("_total") else "")
        for name, kind in re.findall(r"# TYPE (\S+) (\S+)", told)
    }


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_every_alert_is_about_figures_that_there_are(rule: dict[str, Any]) -> None:
    names = set(re.findall(r"darner_\w+", rule["expr"]))
    assert names
    assert names <= known()
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "what_to_do"}
    assert rule["expr"].count("(") == rule["expr"].count(")")


def test_alerts_have_names_of_their_own() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) > 10
