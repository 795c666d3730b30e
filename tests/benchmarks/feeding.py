"""What feeds a GPU: a simulation of one labelling actor, from which `docs/scaling.md` has its tables.

python -m tests.benchmarks.feeding

Fetch threads, decode threads and a GPU hand images on in order, with as many ahead as
`workers.label.reader.ImageReader` and `workers.label.labeller.Labeller` allow. It is deterministic and
needs no GPU.
"""

import heapq
from dataclasses import dataclass, replace

from jobs.plan.predict import OVERHEAD_CPU_S, Load, predict
from schemas.plan import Plan, max_bundle_units
from schemas.prediction import Cluster, Costs
from schemas.spec import ComputeSpec

ENDLESS = 40_960
"""Images of a unit: more change nothing."""

BATCH = 64
READS = (16, 64, 256)

VCPU = 1.5
"""A cloud's CPU is half of a core: when both halves are at work, each takes so much longer."""


def on_vcpus(costs: Costs) -> Costs:
    """What takes a core so long, on a CPU of a cloud."""
    return replace(
        costs,
        fetch_cpu_s=costs.fetch_cpu_s * VCPU,
        decode_cpu_s=costs.decode_cpu_s * VCPU,
        own_cpu_s=costs.own_cpu_s * VCPU,
    )


PHOTO = on_vcpus(
    Costs(
        fetch_s=0.040,
        file_bytes=110_000,
        fetch_cpu_s=0.0005,
        decode_cpu_s=0.0019,  # 1.4 ms by libjpeg-turbo, 0.5 ms to check and hash the file
        own_cpu_s=OVERHEAD_CPU_S,
        models={"ResNet18": 1 / 2500},
    )
)
"""Of a photo of ImageNet's size. What the L4 takes, copies and resizing included, is an assumption."""

LARGE_PHOTO = on_vcpus(
    Costs(
        0.080,
        3_500_000,
        fetch_cpu_s=0.004,
        decode_cpu_s=0.100,
        own_cpu_s=OVERHEAD_CPU_S,
        models={"ResNet18": 1 / 2500},
    )
)
"""Of a phone's, 12 megapixels."""

DETECTED = replace(PHOTO, models={"a detector": 1 / 100})
"""The small photo, and a detector that the L4 does 100 images a second of."""

SENDING_CPU_S = RECEIVING_CPU_S = 0.0003 * VCPU
"""Of a core at either end, to hand over pixels that were resized before: 200 KB."""

SCALING = {4: 456.2, 8: 195.5, 16: 144.8, 32: 111.2}
"""Seconds that Ray Data 2.50 took for 803,580 photos and ResNet18 on eight L4, by the CPUs beside each:
https://docs.ray.io/en/latest/data/benchmark.html"""

SCALING_DAFT = {4: 263.0, 8: 202.0, 16: 195.0, 32: 195.3}
"""The same of Daft 0.6.2; the first as its makers have it, the others from the same page."""


@dataclass(frozen=True)
class Node:
    """A machine by the hour; prices are examples (dollars, on demand)."""

    name: str
    cpus: int
    price: float


SMALL, LARGE, CPU_NODE = Node("g6.xlarge", 4, 0.80), Node("g6.8xlarge", 32, 2.01), Node("c7i.xlarge", 4, 0.18)


def simulated(costs: Costs, cpus: int, unit: int, concurrency: int) -> float:
    """Images a second of one actor with a GPU.

    Args:
        costs: of an image.
        cpus: of the node; one thread attends to the GPU, the others decode and do what else a core must.
        unit: images that are labelled before the next ones are decoded.
        concurrency: files that are read at once.
    """
    units = max_bundle_units(unit, "cuda")
    return (
        units * unit / bundle_done(0.0, costs, max(cpus - 1, 1), (units, unit), concurrency)
    )  # all bundles are alike


def bundle_done(
    began: float, costs: Costs, threads: int, units_of: tuple[int, int], concurrency: int
) -> float:
    """When the last batch of so many units of so many images is labelled."""
    core = costs.fetch_cpu_s + costs.decode_cpu_s + costs.own_cpu_s
    gpu = sum((costs.models or {}).values())
    readers, decoders = [began] * concurrency, [began] * threads
    units, unit = units_of
    asked: list[float] = []  # when the models asked for each image: then one more is begun ahead
    now = began
    for image in range(units * unit):
        place = image % unit
        if place == 0:
            unit_began = now
        asked.append(now)
        read_from = asked[image - BATCH - concurrency] if image >= BATCH + concurrency else began
        decode_from = asked[image - BATCH] if place >= BATCH else unit_began
        read = max(read_from, heapq.heappop(readers)) + costs.fetch_s
        heapq.heappush(readers, read)
        decoded = max(decode_from, heapq.heappop(decoders), read) + core
        heapq.heappush(decoders, decoded)
        now = max(now, decoded)
        if place % BATCH == BATCH - 1 or place == unit - 1:
            now += (place % BATCH + 1) * gpu
    return now


def reckoned(costs: Costs, cpus: int, unit: int, concurrency: int) -> float:
    """The same by the arithmetic of `raylabel plan`."""
    load = Load(Plan(rows=1000 * unit, unit_rows=unit, shard_units=1000), ComputeSpec(), concurrency, 0.0)
    return predict(costs, load, Cluster(1, cpus, 1)).images_per_s


def calibrated(seconds: dict[int, float]) -> tuple[float, float, dict[int, tuple[float, float]]]:
    """A published pipeline as core seconds an image and a ceiling.

    Returns:
        Core seconds an image, from the fewest CPUs; the ceiling, images a second, from the most; and for each
        number of CPUs the rate published and simulated.
    """
    published = {cpus: 803_580 / 8 / took for cpus, took in seconds.items()}
    few, many = min(published), max(published)
    core = (few - 1) / published[few]
    costs = Costs(0.0, 0.0, 0.0, core, 0.0, {"ResNet18": 1 / published[many]})
    rates = {cpus: (rate, simulated(costs, cpus, 4096, 16)) for cpus, rate in published.items()}
    return core, published[many], rates


def with_cpu_nodes(costs: Costs, gpu_node: Node, cpu_nodes: int) -> float:
    """Images a second of one GPU whose node's cores and some CPU nodes decode (`compute.decoders`)."""
    core = costs.fetch_cpu_s + costs.decode_cpu_s + costs.own_cpu_s
    theirs = cpu_nodes * CPU_NODE.cpus / (core + SENDING_CPU_S)
    most = 1 / sum((costs.models or {}).values())
    own = gpu_node.cpus - 1
    theirs = min(theirs, most, own / RECEIVING_CPU_S)
    return min(most, theirs + (own - theirs * RECEIVING_CPU_S) / core)


def dollars_a_million(price: float, rate: float) -> float:
    """What a million images cost at a price for an hour and a rate."""
    return price / 3600 * 1e6 / rate


Rows = list[tuple[object, ...]]


def table(heads: list[str], rows: Rows) -> None:
    """Prints a table in Markdown."""
    print("\n| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


def main() -> None:
    """Prints the tables of docs/scaling.md."""
    for name, seconds in (("Ray Data 2.50", SCALING), ("Daft 0.6.2", SCALING_DAFT)):
        core, most, rates = calibrated(seconds)
        print(f"\n{name}: {1000 * core:.1f} ms of a CPU an image, at most {most:.0f} images/s")
        rows: Rows = [
            (cpus, f"{there:.0f}", f"{here:.0f}", f"{here / there - 1:+.0%}")
            for cpus, (there, here) in rates.items()
        ]
        table(["CPUs", "published", "simulated", "off"], rows)

    print("\nraylabel on one L4, units of 512, by CPUs and reads at once: images/s (by `raylabel plan`)")
    rows = [
        (
            cpus,
            *(f"{simulated(PHOTO, cpus, 512, n):,.0f} ({reckoned(PHOTO, cpus, 512, n):,.0f})" for n in READS),
        )
        for cpus in (4, 8, 16, 32)
    ]
    table(["CPUs", *map(str, READS)], rows)

    print("\n32 CPUs, 256 reads at once, by how long one takes and images of a unit: images/s (by the plan)")
    units = (64, 128, 512, ENDLESS)
    rows = []
    for wait in (0.01, 0.04, 0.1):
        slow = replace(PHOTO, fetch_s=wait)
        cells = (f"{simulated(slow, 32, n, 256):,.0f} ({reckoned(slow, 32, n, 256):,.0f})" for n in units)
        rows.append((f"{1000 * wait:.0f} ms", *cells))
    table(["a read takes", *map(str, units[:-1]), "endless"], rows)

    for name, costs, counts in (
        ("ResNet18, photos of 110 KB", PHOTO, (1, 2, 3, 4)),
        ("a detector of 100 images/s, photos of 110 KB", DETECTED, (1,)),
        ("ResNet18, photos of 12 megapixels", LARGE_PHOTO, (1, 4, 16, 64)),
    ):
        print(f"\n{name}, 256 reads at once")
        rows = []
        for node in (SMALL, LARGE):
            rate = simulated(costs, node.cpus, 512, 256)
            rows.append((node.name, f"{rate:,.0f}", f"{dollars_a_million(node.price, rate):,.2f}"))
        for count in counts:
            rate, price = with_cpu_nodes(costs, SMALL, count), SMALL.price + count * CPU_NODE.price
            nodes = f"{SMALL.name} and {count} {CPU_NODE.name}"
            rows.append((nodes, f"{rate:,.0f}", f"{dollars_a_million(price, rate):,.2f}"))
        table(["nodes", "images/s", "dollars a million"], rows)


if __name__ == "__main__":
    main()
