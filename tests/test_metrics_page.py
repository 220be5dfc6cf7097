"""The metrics: the page names each one that a real process serves, and no alert and no panel asks for another."""

import json
import re
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from shared import metrics
from shared.config.settings import load_settings
from shared.version import VERSION
from tests.support.processes import PaymentsProcess, Shop, processes
from tests.support.promql import Query
from tests.support.receivers import answering, receiver
from tests.support.repository import ROOT
from tests.support.servers import ValkeyServer, free_port
from tests.support.waiting import eventually

PAGE = (ROOT / "docs" / "metrics.md").read_text()
ALERTS = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
SCRAPES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "payments.json").read_text())
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# What Prometheus itself adds to every target.
OF_PROMETHEUS = {"up"}
TARGET_LABELS = {"job", "instance"}
EXPRESSIONS = [rule["expr"] for rule in RULES] + [target["expr"] for panel in PANELS for target in panel["targets"]]
# They have no sample before the first failure, or late answer, so their labels are asked of the metric itself.
WITHOUT_SAMPLES = {
    "payments_gateway_notifications_sent_total": metrics.notifications_sent,
    "payments_database_errors_total": metrics.database_errors,
    "payments_broker_failures_total": metrics.broker_failures,
    "payments_log_lines_left_out_total": metrics.log_lines_left_out,
}
UNITS = {
    "requests", "payments", "refunds", "seconds", "deliveries", "workers", "slots", "claims", "attempts", "calls",
    "errors", "keys", "lines", "rows", "bytes", "files", "objects", "collections", "0 or 1", "1",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One metric as the page describes it."""

    kind: str
    unit: str
    labels: frozenset[str]
    meaning: str
    normal: str


def documented(section: str = "") -> dict[str, Row]:
    """The rows of the tables of the page, or of one section, by the name of their metric."""
    text = PAGE if not section else PAGE.partition(f"## {section}")[2].partition("\n## ")[0]
    rows: dict[str, Row] = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            name, kind, labels, meaning, normal = (cell.strip() for cell in line.strip("|").split("|"))
            what, _, unit = kind.partition(", ")
            label_names = frozenset(re.findall(r"`(\w+)`", labels))
            rows[name.strip("`")] = Row(what, unit, label_names, meaning, normal)
    return rows


@dataclass(frozen=True, slots=True)
class Scraped:
    """What the API and the worker served after some traffic of every kind."""

    api: dict[str, Metric]
    worker: dict[str, Metric]

    @property
    def both(self) -> dict[str, list[Metric]]:
        names = self.api.keys() | self.worker.keys()
        return {name: [side[name] for side in (self.api, self.worker) if name in side] for name in names}


def families(text: str) -> dict[str, Metric]:
    """The metrics of an exposition, by the name that the page gives them: a counter's ends in `_total`."""
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: family
        for family in text_string_to_metric_families(text)
        if not family.name.endswith("_created")
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scraped(tmp_path_factory: pytest.TempPathFactory) -> Scraped:
    folder = tmp_path_factory.mktemp("metrics")
    with ValkeyServer(folder / "valkey") as valkey:
        settings = load_settings(
            port=free_port(),
            metrics_port=free_port(),
            database_url=f"sqlite:///{folder}/payments.db",
            redis_url=valkey.url,
            # Nobody listens there, and a token with a role is not asked about.
            auth_service_url=f"http://127.0.0.1:{free_port()}",
            payment_processing_delay_min=0,
            payment_processing_delay_max=5,
            webhook_retry_schedule=(0.1, 0.1),
            relay_interval_s=0.1,
        )
        up = PaymentsProcess("up", folder / "up", settings)
        with processes(up):
            await up.ready()
            async with receiver(answering(500), answering(200)) as shop_server, Shop(settings, role="admin") as shop:
                await shop.http.get("/payments", headers={"Authorization": f"Bearer {await users_token(settings)}"})
                await shop.http.post("/webhooks/payment")
                await shop.add_card()
                await shop.pay(callback_url=shop_server.url, headers={"Prefer": "wait=20"})
                paid = await shop.pay(payment_method_id="pm_test_visa", headers={"Prefer": "wait=20"})
                await shop.http.post(f"/payments/{paid.json()['id']}/refunds", headers={"Prefer": "wait=20"})
                await eventually(lambda: up.lines("delivery.delivered"))
                await eventually(lambda: up.lines("relay.published"))
            async with httpx.AsyncClient(trust_env=False) as http:
                api, worker = [
                    families((await http.get(f"http://127.0.0.1:{port}/metrics")).raise_for_status().text)
                    for port in (settings.port, settings.metrics_port)
                ]
    return Scraped(api, worker)


async def users_token(settings: Any) -> str:
    async with Shop(settings) as user:
        return str(user.http.headers["Authorization"]).removeprefix("Bearer ")


def labels_of(metric: Metric) -> set[str]:
    return {label for sample in metric.samples for label in sample.labels} - {"le"}


def test_every_metric_is_on_the_page_and_no_other_is(scraped: Scraped) -> None:
    assert scraped.both.keys() == documented().keys()


def test_the_page_names_kinds_units_and_labels_as_they_are(scraped: Scraped) -> None:
    for name, row in documented().items():
        for metric in scraped.both[name]:
            assert row.kind == metric.type, name
        found = set().union(*(labels_of(metric) for metric in scraped.both[name]))
        if name in WITHOUT_SAMPLES and not found:
            # Raises ValueError for other labels than it has.
            WITHOUT_SAMPLES[name].labels(**dict.fromkeys(row.labels, "x"))
        else:
            assert row.labels == found, f"{name}: no sample, or other labels"
        assert row.unit in UNITS, name
        assert row.meaning.strip()
        assert row.normal.strip()
        assert ("seconds" in name) == (row.unit == "seconds"), name


def test_a_worker_says_nothing_about_the_whole_installation(scraped: Scraped) -> None:
    """It does not count them, and a 0 that nobody counted would look like an installation without workers."""
    installation = documented("The whole installation")
    assert len(installation) > 5
    assert not scraped.worker.keys() & installation.keys()
    assert installation.keys() <= scraped.api.keys()
    assert [sample.labels for sample in scraped.worker["payments_build_info"].samples] == [{"version": VERSION}]


# -- alerts and the dashboard


@pytest.mark.parametrize("expression", sorted(set(EXPRESSIONS)))
def test_every_expression_asks_for_what_is_there(expression: str, scraped: Scraped) -> None:
    query = Query(expression)
    assert query.selectors
    for selector in query.selectors:
        name, labels = selector.metric, selector.labels - TARGET_LABELS
        if name in OF_PROMETHEUS:
            continue
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        name, suffix = (base, name.removeprefix(base)) if base in scraped.both else (name, "")
        [metric, *_] = scraped.both[name]
        assert (metric.type == "histogram") == bool(suffix), expression
        assert (metric.type != "gauge") == (selector.function in {"rate", "increase"}), expression
        found = set().union(*(labels_of(each) for each in scraped.both[name])) | (
            {"le"} if suffix == "_bucket" else set()
        )
        assert labels <= found, expression


def test_the_reader_refuses_what_is_no_promql() -> None:
    for wrong in ("sum(", "rate(x)", "sum(x) by", "x{a}", "x >", "foo(x)", "x[5m]", "x y", "x{a=~1}", "$x", "by (x)"):
        with pytest.raises(ValueError, match=r".+"):
            Query(wrong)
    query = Query('sum by (a) (rate(x_total{b=~"5.."}[5m])) / on (c) sum(y) > 0.5')
    assert [(each.metric, each.labels) for each in query.selectors] == [("x_total", {"a", "b"}), ("y", set())]


def test_every_alert_says_how_bad_it_is_and_what_it_means() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names) > 8
    for rule in RULES:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["labels"].keys() == {"severity"}
        assert re.fullmatch(r"\d+[mh]", rule.get("for", "1m"))
        assert rule["annotations"]["summary"].endswith(".")


def test_every_alert_is_explained_in_the_runbook_and_no_other_is() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    explained = re.findall(r"^\| `(Payments\w+)` \|", page, flags=re.MULTILINE)
    assert explained == [rule["alert"] for rule in RULES]


def test_the_jobs_of_the_alerts_are_those_of_the_scrape_configuration() -> None:
    jobs = {job["job_name"] for job in SCRAPES["scrape_configs"]}
    used = set(re.findall(r'job="([^"]+)"', " ".join(EXPRESSIONS)))
    assert used <= jobs == {"payments-api", "payments-worker"}


def test_every_panel_has_a_place_a_unit_and_a_data_source_to_choose() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & places, panel["title"]
        assert place["x"] + place["w"] <= 24
        places |= cells
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
    assert DASHBOARD["templating"]["list"][0]["name"] == "datasource"
