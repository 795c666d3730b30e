"""Predictions against sums that were done by hand."""

from dataclasses import replace

import pytest

from jobs.plan.bottleneck import ADVICE, describe_bottleneck
from jobs.plan.predict import Load, nodes_within, predict
from schemas.exceptions import RaylabelError
from schemas.plan import Plan
from schemas.prediction import Cluster, Costs, Prediction
from schemas.spec import ComputeSpec

# 0.5 + 3 + 5 + 10 and, for Ray, 1.5: 20 ms of a core
ON_CPU = Costs(
    fetch_s=0.0,
    file_bytes=100_000,
    fetch_cpu_s=0.0005,
    decode_cpu_s=0.003,
    own_cpu_s=0.0015,
    models={"classifier": 0.005, "detector": 0.010},
)
# 0.5 + 3 + 1.5: 5 ms of a core; 2 ms of a GPU
ON_GPU = replace(ON_CPU, models={"classifier": 0.0005, "detector": 0.0015})
UNKNOWN = replace(ON_GPU, models=None)


def load(rows: int = 64_000, unit_rows: int = 64, concurrency: int = 16, startup: float = 12.0) -> Load:
    plan = Plan(rows=rows, unit_rows=unit_rows, shard_units=1000)
    return Load(plan, ComputeSpec(), concurrency, startup)


def test_a_cpu_node_does_as_many_images_as_its_cores_have_time_for() -> None:
    prediction = predict(ON_CPU, load(startup=15.0), Cluster(nodes=5, cpus=4, price=0.20))
    # 20 cores / 0.020 s; 64,000 images take 64 s, and 15 s to start
    assert prediction.images_per_s == pytest.approx(1000)
    assert (prediction.startup_s, prediction.seconds) == pytest.approx((15, 79))
    assert prediction.utilization == pytest.approx(
        {"models": 0.75, "decode": 0.15, "CPUs": 1.0, "driver": 1000 / 38_400, "reads": 0.0}
    )  # bundles are of six units; no network is known, and files are there at once
    assert prediction.cpu_parts == {
        "fetch": 0.0005,
        "decode": 0.003,
        "raylabel and Ray": 0.0015,
        "classifier": 0.005,
        "detector": 0.010,
    }
    assert prediction.cpu_hours == pytest.approx(20 * 79 / 3600)
    assert prediction.gpu_hours == 0
    assert prediction.cost == pytest.approx(5 * 0.20 * 79 / 3600)
    assert describe_bottleneck(prediction) == (
        "models (detector 50% of the CPU time)",
        "more cores, a GPU, or a smaller model",
    )


def test_a_gpu_node_does_as_many_images_as_its_gpus_have_time_for() -> None:
    prediction = predict(ON_GPU, load(unit_rows=640), Cluster(nodes=2, cpus=8, gpus=1, price=1.0))
    # a unit takes 1.28 s of a GPU; before, its first 64 images take 5 ms each of seven cores: one thread
    # attends to the GPU
    rate = 2 * 640 / (1.28 + 64 * 0.005 / 7)
    assert prediction.images_per_s == pytest.approx(rate)
    assert prediction.seconds == pytest.approx(12 + 64_000 / rate)
    assert prediction.utilization == pytest.approx(
        {
            "models": rate * 0.002 / 2,
            "decode": rate * 0.003 / 14,
            "CPUs": rate * 0.005 / 14,
            "driver": rate * 0.010 / 3840,  # bundles of six units
            "reads": 0.0,
        }
    )
    assert prediction.gpu_hours == pytest.approx(2 * prediction.seconds / 3600)
    assert prediction.cost == pytest.approx(2 * prediction.seconds / 3600)
    assert describe_bottleneck(prediction) == ("models (detector 75% of their time)", ADVICE["models"])


def test_a_gpu_with_few_cores_waits_for_them() -> None:
    prediction = predict(ON_GPU, load(unit_rows=640), Cluster(nodes=1, cpus=2, gpus=1))
    # 3.2 s of the one core, and the GPU's last 64 images at 2 ms
    assert prediction.images_per_s == pytest.approx(640 / (3.2 + 0.128))
    assert describe_bottleneck(prediction) == ("decode (60% of the CPU time)", ADVICE["decode"])


def test_a_unit_of_one_batch_is_decoded_and_labelled_by_turns() -> None:
    prediction = predict(ON_GPU, load(unit_rows=64), Cluster(nodes=1, cpus=2, gpus=1))
    assert prediction.images_per_s == pytest.approx(1 / (0.005 + 0.002))
    two = replace(load(unit_rows=64), compute=ComputeSpec(batch_size=32))
    assert predict(ON_GPU, two, prediction.cluster).images_per_s == pytest.approx(1 / (0.005 + 0.001))


def test_the_network_is_shared_by_a_nodes_images() -> None:
    prediction = predict(UNKNOWN, load(), Cluster(nodes=2, cpus=32, gpus=1, network_gbps=0.2))
    assert prediction.images_per_s == pytest.approx(2 * 0.2e9 / 8 / 100_000)
    assert describe_bottleneck(prediction) == ("network", ADVICE["network"])


def test_reads_under_way_are_limited_by_their_number() -> None:
    slow = replace(UNKNOWN, fetch_s=0.2)
    prediction = predict(slow, load(unit_rows=64_000, rows=64_000), Cluster(nodes=1, cpus=32, gpus=1))
    # 16 reads of 0.2 s each: 80 a second
    assert prediction.images_per_s == pytest.approx(80)
    assert prediction.utilization["reads"] == pytest.approx(1)
    assert describe_bottleneck(prediction) == (
        "fetch latency, with fetch.concurrency reads at once",
        ADVICE["reads"],
    )


def test_reads_of_the_whole_job_begin_no_faster_than_its_rate() -> None:
    held = replace(load(), reads_per_s=250)
    for nodes in (5, 50):  # 1000 images a second and more without it
        prediction = predict(ON_CPU, held, Cluster(nodes=nodes, cpus=4))
        assert prediction.images_per_s == pytest.approx(250)
        assert prediction.utilization["fetch.rate"] == pytest.approx(1)
        assert describe_bottleneck(prediction) == (
            "fetch.rate, the reads started per second",
            ADVICE["fetch.rate"],
        )
    assert nodes_within(ON_CPU, held, Cluster(nodes=1, cpus=4), 200) is None
    loose = predict(ON_CPU, replace(load(), reads_per_s=4000), Cluster(nodes=5, cpus=4))
    assert (loose.images_per_s, loose.utilization["fetch.rate"]) == pytest.approx((1000, 0.25))


def test_actors_that_are_not_there_leave_their_share_of_the_rate() -> None:
    compute = ComputeSpec.model_validate({"actors": {"min": 1, "max": 16}})
    held = replace(load(), reads_per_s=160, compute=compute)
    assert predict(ON_CPU, held, Cluster(nodes=1, cpus=4)).images_per_s == pytest.approx(40)


def test_each_bundle_begins_with_a_wait_for_its_first_file_and_each_unit_for_its_first_batch() -> None:
    slow = replace(ON_GPU, fetch_s=0.2)
    prediction = predict(slow, load(concurrency=4096), Cluster(nodes=1, cpus=33, gpus=1))
    # 64 units of a bundle: 0.2 s until they are read, and of each 0.01 s of 32 cores and 0.128 s of the GPU
    assert prediction.images_per_s == pytest.approx(4096 / (0.2 + 64 * 0.138))
    longer = predict(slow, load(unit_rows=512, rows=51_200, concurrency=4096), prediction.cluster)
    assert longer.images_per_s == pytest.approx(4096 / (0.2 + 8 * (0.01 + 512 * 0.002)))
    assert longer.bottleneck == "models"


def test_files_that_come_late_leave_a_gpu_idle_at_the_beginning_of_each_bundle() -> None:
    late = replace(ON_GPU, fetch_s=2.0)
    prediction = predict(late, load(rows=6_400, concurrency=1024), Cluster(nodes=1, cpus=33, gpus=1))
    # bundles of twelve units, an eighth of all: 2 s for 768 images that the GPU has done in 1.5 s
    assert describe_bottleneck(prediction) == ("waits at the start of units", ADVICE["units"])


def test_the_driver_is_one_however_many_nodes_there_are() -> None:
    prediction = predict(ON_CPU, load(rows=64_000_000), Cluster(nodes=100, cpus=32))
    # bundles of eight units take 10 ms each; 3,200 actors do 312.5 units each: 313 rounds
    assert prediction.images_per_s == pytest.approx(512 / 0.010)
    assert prediction.seconds == pytest.approx(12 + 1250 * 313 / 312.5)
    assert describe_bottleneck(prediction) == ("driver", ADVICE["driver"])


def test_actors_without_a_unit_in_the_last_round_are_idle() -> None:
    prediction = predict(ON_CPU, load(rows=64 * 9), Cluster(nodes=1, cpus=4))
    # nine units on four actors are three rounds, each of 64 images at 20 ms
    assert prediction.seconds == pytest.approx(12 + 3 * 64 * 0.020)


def test_no_more_actors_work_than_there_are_units() -> None:
    prediction = predict(ON_CPU, load(rows=128), Cluster(nodes=1, cpus=8))
    # of eight cores the models can use two, one an actor: 15 ms an image
    assert prediction.images_per_s == pytest.approx(2 / 0.015)
    assert describe_bottleneck(prediction) == ("models (detector 67% of their time)", ADVICE["actors"])


def test_where_a_gpus_models_are_not_known_the_rest_is_the_most_there_can_be() -> None:
    prediction = predict(UNKNOWN, load(), Cluster(nodes=1, cpus=4, gpus=1))
    assert prediction.images_per_s == pytest.approx(3 / 0.005)
    assert prediction.model_parts is None
    assert "models" not in prediction.utilization
    assert describe_bottleneck(prediction) == ("decode (60% of the CPU time)", ADVICE["decode"])


def test_what_has_no_gpu_is_refused_where_one_is_asked_for() -> None:
    asked = replace(load(), compute=ComputeSpec(device="cuda"))
    with pytest.raises(RaylabelError, match="has no GPU"):
        predict(ON_GPU, asked, Cluster(nodes=1, cpus=4))


@pytest.mark.parametrize(
    ("seconds", "nodes"),
    [
        (12 + 320.0, 1),  # 4 cores / 0.020 s: 200 a second, 1,000 units in 250 rounds of 1.28 s
        (12 + 319.0, 2),
        (12 + 64.0, 5),
        (12 + 63.9, 6),
        (12 + 10.24, 32),  # 8 rounds
        (12 + 9.0, None),  # 7, but the driver hands out a thousand units one by one in 10 s
        (12 + 1.2, None),  # one round takes longer
    ],
)
def test_the_fewest_nodes_for_a_deadline_are_found(seconds: float, nodes: int | None) -> None:
    prediction = nodes_within(ON_CPU, load(), Cluster(nodes=99, cpus=4), seconds + 1e-6)
    assert (prediction and prediction.cluster.nodes) == nodes


def test_a_cluster_is_printed_in_words() -> None:
    assert str(Cluster(1, 4, 1)) == "1 node of 4 CPUs and 1 GPU"
    assert str(Cluster(1_000, 1)) == "1,000 nodes of 1 CPU"


def test_a_prediction_without_a_price_has_no_cost() -> None:
    prediction: Prediction = predict(ON_CPU, load(), Cluster(nodes=1, cpus=4))
    assert prediction.cost is None
