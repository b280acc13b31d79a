"""deploy/prometheus and deploy/grafana: what Prometheus' own tool says of them, and that they name
only what shardtool really writes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fixtures import Node
from shardtool.cli.app import COMMANDS
from shardtool.monitor.metrics import text_of
from tests.conftest import REPOSITORY, Run
from tests.needs import lacking
from tests.unit.monitor_world import found, node, receipt, shard
from tests.unit.test_metrics import look

RULES = REPOSITORY / "deploy/prometheus/shardtool.rules.yml"
TESTS = REPOSITORY / "deploy/prometheus/shardtool.rules.test.yml"
DASHBOARD = REPOSITORY / "deploy/grafana/shardtool.json"
NAME = re.compile(r"\bshardtool_\w+")
# What Grafana puts there before a query is sent.
VARIABLES = {"$instance": ".*", "$data": ".*", "${datasource}": "x"}


@pytest.fixture
def promtool() -> str:
    """Return Prometheus' own tool."""
    tool = shutil.which("promtool")
    if tool is None:
        lacking("promtool (apt install prometheus)")
    return tool


def run(*words: str | Path) -> None:
    """Run a command that must not fail."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def written() -> set[str]:
    """Return the names of all metrics that shardtool writes, of a node that has everything."""
    record = {"event": "deleted", "time": "2026-11-02T00:00:00Z", "freed_bytes": 1}
    report = node(shard(1), shard(2), records=(record,))
    text = text_of(look(found(report, receipt(1, day=2), last_proof=1.0, snapshots=(1.0,))))
    families = text_string_to_metric_families(text.decode())
    return {sample.name for family in families for sample in family.samples}


def labels(expression: str) -> set[tuple[str, str]]:
    """Return the labels that an expression asks for by name, with their values."""
    return set(re.findall(r'(\w+)="([^"]*)"', expression))


@pytest.mark.slow
def test_the_alerts_are_sound_and_do_what_their_tests_say(promtool: str) -> None:
    run(promtool, "check", "rules", RULES)
    run(promtool, "test", "rules", TESTS)


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_quiet() -> None:
    # Without a YAML parser: both files are ours, and written so.
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert len(alerts) == len(set(alerts)) > 10
    tests = TESTS.read_text()
    quiet = set(re.findall(r"alertname: (\w+), exp_alerts: \[\]", tests))
    fires = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n\s+- exp_labels", tests))
    assert quiet == fires == set(alerts)


def test_each_alert_names_a_command_that_there_is() -> None:
    text = RULES.read_text()
    commands = re.findall(r"^\s+command: shardtool (\w+)", text, re.MULTILINE)
    assert len(commands) == text.count("- alert:")
    assert set(commands) <= set(COMMANDS)
    for word in ("summary:", "description:", "severity:"):
        assert text.count(f"  {word}") == len(commands)


def test_alerts_name_only_what_is_written() -> None:
    assert set(NAME.findall(_expressions_of_rules())) <= written()


def test_alerts_and_panels_ask_only_for_labels_that_are_written() -> None:
    everything = text_of(look(found(node(shard(1))))).decode()
    asked = labels(_expressions_of_rules()) | {
        pair for _, one in queries() for pair in labels(one) if "$" not in pair[1]
    }
    assert asked
    for name, value in asked:
        assert f'{name}="{value}"' in everything, (name, value)


def _expressions_of_rules() -> str:
    blocks = re.findall(r"expr: (.*?)\n\s+for:", RULES.read_text(), re.DOTALL)
    assert len(blocks) == RULES.read_text().count("- alert:")
    return "\n".join(blocks)


# -- the dashboard --


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def queries() -> Iterator[tuple[str, str]]:
    """Yield each panel's title with each of its queries."""
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_each_panel_has_a_query_a_unit_words_and_room_of_its_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["targets"], panel["title"]
        assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"]
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_source_of_data_and_what_is_shown_can_be_chosen() -> None:
    loaded = dashboard()
    assert loaded["uid"] == "shardtool"
    variables = {one["name"]: one for one in loaded["templating"]["list"]}
    assert list(variables) == ["datasource", "instance", "data"]
    for panel in loaded["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
    for _, query in queries():
        assert query.count('instance=~"$instance",data=~"$data"') == len(NAME.findall(query))


def test_panels_show_only_what_is_written_and_nearly_all_of_it() -> None:
    shown = {name for _, query in queries() for name in NAME.findall(query)}
    assert shown <= written()
    asked = set(NAME.findall(json.dumps(dashboard()["templating"])))
    assert asked <= written()
    rules = set(NAME.findall(RULES.read_text()))
    # Nobody looks at these by themselves.
    details = {"build_info", "old_accepted_shards", "new_shards", "proofs", "snapshots"}
    details |= {"newest_marker_timestamp_seconds", "trash_reclaimable_bytes"}
    assert written() - shown - rules == {f"shardtool_{name}" for name in details}


def test_each_query_can_be_parsed(promtool: str, tmp_path: Path) -> None:
    rules = []
    for number, (_, query) in enumerate(queries()):
        sent = query
        for variable, value in VARIABLES.items():
            sent = sent.replace(variable, value)
        assert "$" not in sent
        rules.append({"record": f"panel:{number}", "expr": sent})
    # JSON is YAML.
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    run(promtool, "check", "rules", file)


@pytest.mark.slow
def test_what_a_real_run_writes_is_what_the_panels_are_tested_with(
    shardtool: Run, tmp_path: Path
) -> None:
    made = Node(tmp_path / "data", version="0.8")
    made.old_shard(1, points=4)
    made.migrate(1)
    for words in (["verify"], ["backup"], ["prune", "--yes"]):
        assert shardtool(*words, "-q", "--data", made.path).returncode == 0
    made.old_shard(2, points=4)
    made.migrate(2)
    shardtool("verify", "-q", "--data", made.path)
    shardtool("status", "--data", made.path, "--prometheus", tmp_path / "x.prom")
    assert set(NAME.findall((tmp_path / "x.prom").read_text())) == written()
