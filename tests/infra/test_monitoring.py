"""The dashboard and the alerts against the metrics that there are, by Prometheus' and Grafana's own means."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from schemas.metrics import METRICS
from tests.infra.manifests import INFRA, compose, documents, kubernetes

MONITORING = INFRA / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
RULES: list[dict[str, Any]] = yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"][0]["rules"]
NAMES = {metric.name: metric for metric in METRICS}

PROMTOOL = shutil.which("promtool") or ""
needs_promtool = pytest.mark.skipif(
    not PROMTOOL, reason="promtool is not installed; Debian's prometheus has it"
)


def filled_in(expression: str) -> str:
    """An expression of the dashboard with values in the place of its variables."""
    return expression.replace("$window", "5m").replace("$run", "s3://bucket/runs/today")


SHOWN = {
    f"{panel['title']} {target['refId']}": filled_in(target["expr"])
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
EXPRESSIONS = SHOWN | {rule["alert"]: rule["expr"] for rule in RULES}


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """The series that an expression selects."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_expression_is_one_and_asks_for_metrics_and_labels_that_exist(name: str) -> None:
    expression = EXPRESSIONS[name]
    asked = selectors(expression)
    assert asked
    assert {each.name for each in asked} <= NAMES.keys()
    for each in asked:
        assert {matcher.name for matcher in each.matchers.matchers} <= {*NAMES[str(each.name)].labels}
    known = {label for each in asked for label in NAMES[str(each.name)].labels}
    for listed in re.findall(r"\bby \(([^)]+)\)", expression):
        assert set(re.split(r",\s*", listed)) <= known


@pytest.mark.parametrize(
    "broken", ["sum(", "rate(ray_raylabel_images_total)", "sum by (run (x)", "nosuch(x[5m])"]
)
def test_an_expression_that_is_none_would_be_found(broken: str) -> None:
    with pytest.raises(ValueError, match=r"paren|expected type|unknown function"):
        promql_parser.parse(broken)


def test_every_metric_is_on_the_dashboard() -> None:
    assert {each.name for expression in SHOWN.values() for each in selectors(expression)} == NAMES.keys()


def test_only_counters_are_asked_for_their_rate() -> None:
    asked = {name for each in EXPRESSIONS.values() for name in re.findall(r"(?:rate|increase)\((\w+)", each)}
    assert {NAMES[name].kind for name in asked} == {"counter"}


def test_sums_are_over_all_that_ray_adds_to_a_series() -> None:
    for expression in EXPRESSIONS.values():
        selected = len(selectors(expression))
        assert len(re.findall(r"\b(?:sum|max)(?: by \([^)]+\) )?\(", expression)) == selected, expression


def promtool(*arguments: str | Path) -> str:
    """What promtool says; fails where it does."""
    done = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_prometheus_would_take_the_dashboards_expressions(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(SHOWN.values())]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    assert f"{len(SHOWN)} rules found" in promtool("check", "rules", tmp_path / "rules.yaml")


@needs_promtool
def test_prometheus_would_take_its_configuration_and_the_rules() -> None:
    said = promtool("check", "config", MONITORING / "prometheus.yaml")
    assert "is valid prometheus config file syntax" in said
    assert f"{len(RULES)} rules found" in said


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    """Values of a series, one a minute."""
    named = ", ".join(f'{label}="{value}"' for label, value in {"run": "r", **labels}.items())
    return {"series": f"{name}{{{named}}}", "values": values}


STUCK = [series("ray_raylabel_pending_images", "70x120")]
SLOW = [
    series("ray_raylabel_pending_images", "7000-1x120"),
    series("ray_raylabel_images_total", "0+1x120", outcome="labelled"),
]
FAILING = [
    series("ray_raylabel_images_total", "0+80x120", outcome="labelled"),
    series("ray_raylabel_images_total", "0+20x120", outcome="failed"),
]
GOOD = [
    series("ray_raylabel_pending_images", "9000-100x60 0x60"),
    series("ray_raylabel_images_total", "0+95x120", outcome="labelled"),
    series("ray_raylabel_images_total", "0+5x120", outcome="failed"),
    series("ray_raylabel_accelerator_seconds_total", "0+50x120", state="busy"),
    series("ray_raylabel_accelerator_seconds_total", "0+10x120", state="idle"),
]
IDLE = [
    series("ray_raylabel_accelerator_seconds_total", "0+20x120", state="busy"),
    series("ray_raylabel_accelerator_seconds_total", "0+40x120", state="idle"),
]


@needs_promtool
@pytest.mark.parametrize(
    ("given", "fired"),
    [
        (STUCK, {"RaylabelNoProgress": "r has 70 images to do"}),
        (SLOW, {}),
        (FAILING, {"RaylabelManyFailures": "20% of the images of r fail"}),
        (IDLE, {"RaylabelAcceleratorIdle": "idle for 66.67% of the time"}),
        (GOOD, {}),
    ],
    ids=["stuck", "slow", "failing", "idle", "good"],
)
def test_alerts_fire_when_they_should(
    given: list[dict[str, str]], fired: dict[str, str], tmp_path: Path
) -> None:
    def expected(rule: dict[str, Any]) -> list[dict[str, Any]]:
        if rule["alert"] not in fired:
            return []
        value = re.findall(r"[\d.]+%?", fired[rule["alert"]])[0]
        said = {
            name: text.replace("{{ $labels.run }}", "r")
            .replace("{{ $value }}", value)
            .replace("{{ $value | humanizePercentage }}", value)
            for name, text in rule["annotations"].items()
        }
        assert fired[rule["alert"]] in said["summary"]
        return [{"exp_labels": {"run": "r", **rule["labels"]}, "exp_annotations": said}]

    tests = {
        "rule_files": [str(MONITORING / "rules.yaml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": given,
                "alert_rule_test": [
                    {"eval_time": "100m", "alertname": rule["alert"], "exp_alerts": expected(rule)}
                    for rule in RULES
                ],
            }
        ],
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    promtool("test", "rules", tmp_path / "tests.yaml")


def lost(given: object, kept: object, path: str = "") -> list[str]:
    """What of plain values is not in others, or is another value there."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return [
            found
            for key, value in given.items()
            for found in (lost(value, kept[key], f"{path}.{key}") if key in kept else [f"{path}.{key}"])
        ]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        pairs = enumerate(zip(given, kept, strict=True))
        return [found for number, (a, b) in pairs for found in lost(a, b, f"{path}.{number}")]
    return [] if given == kept else [path]


def unknown_to_grafana(dashboard: dict[str, Any]) -> list[str]:
    """The keys of a dashboard that Grafana's own types do not have."""
    register_default_plugins()
    return lost(dashboard, json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard))))


def test_grafana_knows_every_key_of_the_dashboard() -> None:
    assert unknown_to_grafana(DASHBOARD) == []


def test_what_grafana_does_not_know_would_be_found() -> None:
    broken = json.loads(json.dumps(DASHBOARD).replace('"stacking"', '"stackin"').replace('"expr"', '"exp"'))
    found = unknown_to_grafana(broken)
    assert sum(path.endswith("custom.stackin") for path in found) == 2
    assert sum(path.endswith("targets.0.exp") for path in found) == len(SHOWN)


def test_panels_have_names_of_their_own_and_cover_no_other() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24  # columns of a dashboard
    assert all(panel["description"] for panel in panels)


def test_the_dashboard_takes_its_source_and_the_run_from_variables() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables.keys() == {"datasource", "run", "window"}
    asked = variables["run"]["query"]["query"]
    assert re.fullmatch(r"label_values\((\w+), run\)", asked)
    assert {name for name in NAMES if name in asked}
    sources = [target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    assert set(sources) == {"${datasource}"}
    for panel in DASHBOARD["panels"]:
        assert all('run=~"$run"' in target["expr"] for target in panel["targets"])


def test_compose_scrapes_the_port_that_its_nodes_export_at_and_mounts_what_is_here() -> None:
    services = compose()["services"]
    (scraped,) = documents(MONITORING / "prometheus.yaml")
    (found,) = scraped["scrape_configs"][0]["dns_sd_configs"]
    for name in found["names"]:
        assert f"--metrics-export-port={found['port']}" in services[name]["command"]
    mounted = [m.split(":") for name in ("prometheus", "grafana") for m in services[name]["volumes"]]
    assert all((INFRA / source).is_file() for source, *_ in mounted)
    places = {Path(source).name: Path(place) for source, place, _ in mounted}
    (provider,) = documents(MONITORING / "provider.yaml")[0]["providers"]
    assert places["dashboard.json"].parent == Path(provider["options"]["path"])
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert places["dashboard.json"] == Path(home)
    assert places["rules.yaml"].parent == places["prometheus.yaml"].parent
    (source,) = documents(MONITORING / "datasource.yaml")[0]["datasources"]
    assert source["url"] == "http://prometheus:9090"


def test_in_kubernetes_raylabels_pods_are_scraped_and_prometheus_is_let_in() -> None:
    monitor, policy = documents(MONITORING / "podmonitor.yaml")
    kubernetes_validate.validate(policy, "1.35", strict=True)
    pods = kubernetes("NetworkPolicy")["spec"]["podSelector"]
    assert monitor["spec"]["selector"] == policy["spec"]["podSelector"] == pods
    assert [each["port"] for each in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]  # KubeRay's name
    assert policy["spec"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 8080}]
