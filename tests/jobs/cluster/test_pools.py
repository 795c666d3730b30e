from typing import Any

import pytest

from jobs.cluster.pools import Pool, plan_decoders, plan_pool, pool_on
from schemas.exceptions import ClusterError
from schemas.prediction import Cluster
from schemas.spec import ComputeSpec


@pytest.mark.parametrize(
    ("compute", "nodes", "pool"),
    [
        ({}, [{"CPU": 2.0}], Pool(2, 2, 2, 0.5, 0, 1, 1 / 2)),
        ({}, [{"CPU": 1.0}], Pool(1, 1, 1, 0.0, 0, 1, 1)),
        ({}, [{"CPU": 4.0}, {"CPU": 8.0}, {"memory": 1.0}], Pool(12, 12, 12, 0.75, 0, 1, 1 / 8)),
        ({"actors": 3}, [{"CPU": 8.0}], Pool(3, 3, 3, 0.875, 0, 1, 1 / 8)),
        ({}, [{"CPU": 32.0, "GPU": 4.0}, {"CPU": 8.0}], Pool(4, 4, 4, 7, 1, 7, 1 / 4)),
        ({}, [{"CPU": 4.0, "GPU": 4.0}], Pool(4, 4, 4, 0.5, 1, 1, 1 / 4)),
        ({"device": "cpu"}, [{"CPU": 4.0, "GPU": 1.0}], Pool(4, 4, 4, 0.75, 0, 1, 1 / 4)),
        ({"actors": 4}, [{"CPU": 2.0}], Pool(4, 4, 4, 0.25, 0, 1, 1 / 2)),
        ({"actors": {"min": 1, "max": 5}}, [{"CPU": 2.0}, {"CPU": 2.0}], Pool(4, 1, 5, 0.5, 0, 1, 1 / 2)),
        ({"actors": {"min": 5, "max": 9}}, [{"CPU": 2.0}], Pool(5, 5, 9, 0.5, 0, 1, 1 / 2)),
        ({"cpus": 4}, [{"CPU": 8.0}], Pool(2, 2, 2, 3.5, 0, 4, 1 / 2)),
        (
            {"device": "cuda", "actors": {"min": 1, "max": 5}, "cpus": 8},
            [{"CPU": 8.0}],
            Pool(1, 1, 5, 7, 1, 7, 1),
        ),
        ({"device": "cuda", "actors": 1}, [{"CPU": 4.0, "GPU": 2.0}], Pool(1, 1, 1, 1, 1, 1, 1 / 2)),
        (
            {"resources": {"fast": 1}},
            [{"CPU": 4.0, "fast": 2.0}, {"CPU": 8.0}],
            Pool(2, 2, 2, 0.75, 0, 1, 1 / 4, {"fast": 1}),
        ),
        (
            {"resources": {"accelerator_type:L4": 0.001}},
            [{"CPU": 8.0, "GPU": 1.0, "accelerator_type:L4": 1.0}, {"CPU": 8.0, "GPU": 8.0}],
            Pool(1, 1, 1, 7, 1, 7, 1, {"accelerator_type:L4": 0.001}),
        ),
        (
            {"resources": {"fast": 1}, "actors": {"min": 1, "max": 3}},
            [{"CPU": 4.0}],
            Pool(1, 1, 3, 0.75, 0, 1, 1 / 4, {"fast": 1}),
        ),
    ],
)
def test_there_is_one_actor_a_gpu_or_cpu_and_room_left_to_commit(
    compute: dict[str, Any], nodes: list[dict[str, float]], pool: Pool
) -> None:
    assert plan_pool(ComputeSpec(**compute), nodes) == pool


@pytest.mark.parametrize(
    ("compute", "nodes", "message"),
    [
        ({"device": "cuda"}, [{"CPU": 4.0}], "compute.device is cuda, but the Ray cluster has no GPU"),
        ({}, [{"memory": 1.0}], "has no CPU to run on"),
        (
            {"resources": {"fast": 1}},
            [{"CPU": 4.0, "node:10.0.0.1": 1.0}],
            r"asks for \{'fast': 1.0\}, which no node of the Ray cluster has; there are: CPU. If such",
        ),
    ],
)
def test_a_cluster_without_what_is_asked_for_is_refused(
    compute: dict[str, Any], nodes: list[dict[str, float]], message: str
) -> None:
    with pytest.raises(ClusterError, match=message):
        plan_pool(ComputeSpec(**compute), nodes)


FED = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 8.0}]


@pytest.mark.parametrize(
    ("compute", "nodes", "labelling", "decoders"),
    [
        ({}, FED, Pool(1, 1, 1, 3, 1, 3, 1), None),
        ({"decoders": "auto"}, FED, Pool(1, 1, 1, 0, 1, 3, 1), Pool(11, 11, 11, 1, 0, 1, 1 / 8)),
        ({"decoders": 6}, FED, Pool(1, 1, 1, 0, 1, 3, 1), Pool(6, 6, 6, 1, 0, 1, 1 / 8)),
        ({"decoders": 22}, FED, Pool(1, 1, 1, 0, 1, 3, 1), Pool(22, 22, 22, 0.5, 0, 1, 1 / 8)),
        (
            {"decoders": {"min": 1, "max": 40}},
            FED,
            Pool(1, 1, 1, 0, 1, 3, 1),
            Pool(11, 1, 40, 1, 0, 1, 1 / 8),
        ),
        (
            {"decoders": "auto", "resources": {"fast": 1}},
            [{"CPU": 1.0, "fast": 1.0}, {"CPU": 2.0}],
            Pool(1, 1, 1, 0, 0, 1, 1, {"fast": 1}),
            Pool(2, 2, 2, 1, 0, 1, 1 / 2),
        ),
    ],
)
def test_decoders_have_every_cpu_but_one_and_keep_no_actor_with_models_from_its_node(
    compute: dict[str, Any], nodes: list[dict[str, float]], labelling: Pool, decoders: Pool | None
) -> None:
    spec = ComputeSpec(**compute)
    assert (plan_pool(spec, nodes), plan_decoders(spec, nodes, labelling)) == (labelling, decoders)


def test_decoders_without_a_gpu_to_feed_are_refused() -> None:
    spec, nodes = ComputeSpec(decoders="auto"), [{"CPU": 4.0}]
    with pytest.raises(ClusterError, match=r"compute.decoders is for models on GPUs.*Leave"):
        plan_decoders(spec, nodes, plan_pool(spec, nodes))


def test_a_described_cluster_has_the_resources_that_are_asked_for() -> None:
    cluster = Cluster(nodes=2, cpus=4, gpus=1)
    asked = ComputeSpec(resources={"fast": 1}, decoders=3)
    assert pool_on(asked, cluster) == plan_pool(ComputeSpec(), [{"CPU": 4.0, "GPU": 1.0}] * 2)
