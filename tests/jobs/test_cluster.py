from typing import Any

import pytest

from jobs.cluster import NO_PROGRESS_TIMEOUT_S, Pool, plan_pool
from schemas.exceptions import RaylabelError
from schemas.plan import MOST_UNIT_ROWS
from schemas.spec import ComputeSpec
from workers.child import SILENCE_S
from workers.label import TRIES


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
    ],
)
def test_there_is_one_actor_a_gpu_or_cpu_and_room_left_to_commit(
    compute: dict[str, Any], nodes: list[dict[str, float]], pool: Pool
) -> None:
    assert plan_pool(ComputeSpec(**compute), nodes) == pool


@pytest.mark.parametrize(
    ("compute", "nodes", "said"),
    [
        ({"device": "cuda"}, [{"CPU": 4.0}], "compute.device is cuda, but the Ray cluster has no GPU"),
        ({}, [{"memory": 1.0}], "has no CPU to run on"),
    ],
)
def test_a_cluster_without_what_is_asked_for_is_refused(
    compute: dict[str, Any], nodes: list[dict[str, float]], said: str
) -> None:
    with pytest.raises(RaylabelError, match=said):
        plan_pool(ComputeSpec(**compute), nodes)


def test_an_image_that_hangs_is_found_before_the_job_is_taken_for_stuck() -> None:
    halvings = MOST_UNIT_ROWS.bit_length()
    assert (TRIES + halvings + TRIES) * SILENCE_S < NO_PROGRESS_TIMEOUT_S
