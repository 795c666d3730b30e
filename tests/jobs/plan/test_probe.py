from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.cluster.pools import Pool
from jobs.plan.predict import OVERHEAD_CPU_S
from jobs.plan.probe import SAMPLE_RUNS, average, pool_here, sample_locations, sample_rows, this_machine
from schemas.prediction import Cluster, Costs, Probed
from schemas.spec import ComputeSpec
from workers.manifest.convert import write_parquet
from workers.manifest.manifest import Manifest


@given(st.integers(1, 10**10), st.integers(1, 2000))
def test_a_sample_is_so_many_rows_of_the_manifest_each_once(rows: int, size: int) -> None:
    spans = list(sample_rows(rows, size))
    assert sum(len(span) for span in spans) == min(size, rows)
    assert len(spans) <= SAMPLE_RUNS
    ends = [0, *(end for span in spans for end in (span.start, span.stop)), rows]
    assert ends == sorted(ends)
    assert spans == list(sample_rows(rows, size))


def test_a_sample_is_spread_over_the_whole_manifest() -> None:
    spans = list(sample_rows(50_000_000, 64))
    assert [len(span) for span in spans] == [4] * 16
    sixteenths = [span.start * 16 // 50_000_000 for span in spans]
    assert sixteenths == list(range(16))


def test_a_samples_locations_are_read_from_its_rows_alone(tmp_path: object) -> None:
    rows = [{"uri": f"{n}.jpg", "weight": "heavy"} for n in range(1000)]
    files = write_parquet(rows, f"{tmp_path}/m", "s3://bucket/photos")
    manifest = Manifest(files, "uri", None, pa.schema([("weight", pa.string())]))
    wanted = [row for span in sample_rows(1000, 20) for row in span]
    assert sample_locations(manifest, 20) == [f"s3://bucket/photos/{row}.jpg" for row in wanted]
    assert sample_locations(manifest, 5000) == [f"s3://bucket/photos/{row}.jpg" for row in range(1000)]


def test_this_machine_has_the_cores_that_this_process_may_use() -> None:
    here = this_machine()
    assert here.nodes == 1
    assert here.cpus >= 1


@pytest.mark.parametrize(
    ("compute", "here", "pool"),
    [
        ({}, Cluster(1, 4), Pool(4, 4, 4, 0.75, 0, 1, 1 / 4)),
        ({"actors": 2}, Cluster(1, 4), Pool(2, 2, 2, 0.75, 0, 1, 1 / 4)),
        ({"actors": 500}, Cluster(1, 4), Pool(4, 4, 4, 0.75, 0, 1, 1 / 4)),  # meant for a cluster
        ({"device": "cuda"}, Cluster(1, 4), Pool(4, 4, 4, 0.75, 0, 1, 1 / 4)),  # so is this
        ({}, Cluster(1, 8, 2), Pool(2, 2, 2, 3, 1, 3, 1 / 2)),
    ],
)
def test_as_many_processes_probe_as_a_run_has_here(
    compute: dict[str, object], here: Cluster, pool: Pool
) -> None:
    assert pool_here(ComputeSpec.model_validate(compute), here) == pool


def test_costs_are_those_of_an_average_image() -> None:
    one = Probed(10, {}, "", 0.2, 1000, 0.1, 1.0, {"detector": 4.0}, 6.0, 6.0)
    other = Probed(10, {}, "", 0.4, 1000, 0.3, 2.0, {"detector": 6.0}, 9.0, 9.0)
    about: Any = pytest.approx
    assert average([one, other]) == Costs(
        fetch_s=about(0.3),
        file_bytes=100,
        fetch_cpu_s=about(0.02),
        decode_cpu_s=about(0.15),
        own_cpu_s=OVERHEAD_CPU_S,
        models={"detector": 0.5},
    )
