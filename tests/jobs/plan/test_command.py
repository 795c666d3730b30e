import pytest

from jobs.cluster.pools import Pool
from jobs.plan.command import SAMPLE_TARS, PlanOptions, cluster_of, costs_on, sample_sources
from jobs.plan.predict import Load, nodes_within, predict
from jobs.plan.probe import Probe
from jobs.plan.report import PlanReport
from jobs.prepare.resolve import ResolvedJob
from schemas.ledger import SourceFile
from schemas.plan import Plan
from schemas.prediction import Cluster, Costs
from schemas.spec import ComputeSpec
from schemas.spec_file import build_spec
from workers.manifest.sources import Source

CPU_POOL, GPU_POOL = Pool(2, 2, 2, 0.5, 0, 1, 1 / 2), Pool(1, 1, 1, 7, 1, 7, 1)
COSTS = Costs(0.04, 112_000, 0.0005, 0.003, 0.0005, {"classifier": 0.005, "detector": 0.010})
PROBE = Probe(64, 2, "cpu", {"NOT_FOUND": 2, "TRUNCATED": 1}, "fetch: NOT_FOUND: a.jpg", 9.04, 1.0, COSTS)
JOB = ResolvedJob(build_spec({"manifest": "m.csv", "output": "out"}, "a test"), [], {})


def options(
    nodes: int | None = None, cpus: int | None = None, gpus: int | None = None, price: float | None = None
) -> PlanOptions:
    return PlanOptions(64, nodes, cpus, gpus, None, price, None, None, as_json=False)


def lines(costs: Costs, cluster: Cluster, within: float | None = None) -> list[str]:
    """The lines for a person."""
    load = Load(Plan.of(50_000_000, JOB.spec.units), ComputeSpec(), 16, 12.0)
    smallest = nodes_within(costs, load, cluster, within) if within else None
    report = PlanReport(
        JOB, PROBE, predict(costs, load, cluster), within, smallest, saved=costs.models is not None
    )
    return [f"{name}: {fact}" for name, fact in report.facts()]


@pytest.mark.parametrize(
    ("asked", "here", "cluster"),
    [
        (options(), Cluster(1, 8, 1), Cluster(1, 8, 1)),
        (options(nodes=5, price=0.8), Cluster(1, 8, 1), Cluster(5, 8, 1, price=0.8)),
        (options(cpus=32), Cluster(1, 8, 1), Cluster(1, 32, 0)),
        (options(cpus=32, gpus=4), Cluster(1, 8, 1), Cluster(1, 32, 4)),
        (options(gpus=0), Cluster(1, 8, 1), Cluster(1, 8, 0)),
    ],
)
def test_what_is_not_given_of_a_node_is_as_on_this_machine(
    asked: PlanOptions, here: Cluster, cluster: Cluster
) -> None:
    assert cluster_of(asked, here) == cluster


def test_what_a_gpu_takes_is_known_from_a_gpu_or_given() -> None:
    assert costs_on(CPU_POOL, PROBE, None) == costs_on(CPU_POOL, PROBE, 500.0) == COSTS
    assert costs_on(GPU_POOL, PROBE, None).models is None
    assert costs_on(GPU_POOL, PROBE, 500.0).models == {"models, as given": 0.002}


def test_a_prediction_for_cpu_nodes_is_a_page_to_read() -> None:
    assert lines(COSTS, Cluster(10, 32, network_gbps=10, price=1.25), within=3600) == [
        "probed: 64 of 50,000,000 images in each of 2 processes, on cpu, in 9 s",
        "failed: 3 of 64: 2 NOT_FOUND, 1 TRUNCATED; for example fetch: NOT_FOUND: a.jpg",
        "file size: 112 KB, read in 40 ms",
        "CPU time per image: fetch 0.5 ms, decode 3 ms, raylabel and Ray 0.5 ms, classifier 5 ms, "
        "detector 10 ms",
        "cluster: 10 nodes of 32 CPUs",
        "speed: 16,773 images/s",
        "time: 0:50:01, including 12 s to start",
        "cost: 267 CPU hours, 10.42 at 1.25 per node-hour",
        "bottleneck: models (detector 53% of the CPU time); advice: more cores, a GPU, or a smaller model",
        "utilization: CPUs 100%, models 79%, driver 33%, decode 16%, network 15%, reads 13%",
        "within 1:00:00: 9 nodes of 32 CPUs: 0:55:33, 267 CPU hours, 10.42 at 1.25 per node-hour",
        "saved: the run's report will compare this prediction with the run",
    ]


def test_where_a_gpus_models_are_not_known_the_page_says_so_and_gives_bounds() -> None:
    unknown = Costs(0.04, 112_000, 0.0005, 0.003, 0.0005, None)
    printed = lines(unknown, Cluster(1, 4, 1), within=60)
    assert printed[4:] == [
        "cluster: 1 node of 4 CPUs and 1 GPU",
        "unknown: the models' time on a GPU, because this machine has none. Set --gpu-images-per-s, or plan "
        "on a machine with a GPU. The lines below are bounds, as if the models took no time",
        "speed: at most 400 images/s",
        "time: at least 1 day, 10:43:32, including 12 s to start",
        "cost: at least 139 CPU hours, 34.7 GPU hours",
        "bottleneck: fetch latency, with fetch.concurrency reads at once; advice: a larger fetch.concurrency",
        "utilization: reads 100%, CPUs 53%, decode 40%",
        "within 60 s: no number of such nodes is enough: the bottleneck is elsewhere",
    ]


def test_a_probe_on_a_busy_machine_says_so() -> None:
    load = Load(Plan.of(1000, JOB.spec.units), ComputeSpec(), 16, 12.0)
    busy = Probe(64, 2, "cpu", {}, "", 9.0, 0.25, COSTS)
    report = PlanReport(JOB, busy, predict(COSTS, load, Cluster(1, 2)), None, None, saved=False)
    assert dict(report.facts())["note"].startswith("the probe got 25% of its cores' time")
    assert report.to_dict()["probe"]["share"] == 0.25


def tar(number: int, size: int = 100) -> Source:
    return Source(SourceFile(uri=f"/{number}.tar", size=size, version=""), f"/{number}.tar", "tar", "/")


def test_of_many_tar_files_some_are_read_that_are_spread_over_all() -> None:
    tars = [tar(n) for n in range(10_000)]
    chosen, share = sample_sources(tars)
    assert [tars.index(source) * SAMPLE_TARS // 10_000 for source in chosen] == list(range(SAMPLE_TARS))
    assert share == SAMPLE_TARS / 10_000
    assert sample_sources([tar(n, 0) for n in range(32)])[1] == 0.5
    assert sample_sources(tars[:SAMPLE_TARS]) == (tars[:SAMPLE_TARS], 1.0)


def test_manifests_of_another_kind_are_read_whole() -> None:
    listed = Source(SourceFile(uri="/m.csv", size=1, version=""), "/m.csv", "csv", "/")
    sources = [listed, *(tar(n) for n in range(100))]
    assert sample_sources(sources) == (sources, 1.0)
