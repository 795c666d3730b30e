"""What limits a predicted speed, and what would raise it, in words."""

from schemas.prediction import Prediction

ADVICE = {
    "models": "more or larger GPUs, or a smaller model",
    "actors": "more actors (compute.actors), or smaller units (units.rows)",
    "decode": "more CPUs per GPU, or smaller images",
    "CPUs": "more cores",
    "network": "nodes with more bandwidth, or smaller files",
    "reads": "a larger fetch.concurrency",
    "fetch.rate": "a larger fetch.rate, if the store allows it",
    "units": "larger units (units.rows): each starts with a wait for its first images",
    "driver": "larger units (units.rows): each bundle of them takes the driver 10 ms",
}
"""What would make a job faster, by its bottleneck."""

LABELS = {
    "reads": "fetch latency, with fetch.concurrency reads at once",
    "fetch.rate": "fetch.rate, the reads started per second",
    "units": "waits at the start of units",
}
"""Names of bottlenecks that a key of `Prediction.utilization` does not explain."""


def describe_bottleneck(prediction: Prediction) -> tuple[str, str]:
    """The bottleneck of a prediction and the advice that follows from it."""
    model_parts = prediction.model_parts or {}
    on_gpus = prediction.cpu_parts.keys().isdisjoint(model_parts)
    match prediction.bottleneck:
        case "CPUs":
            part, share = _largest(prediction.cpu_parts)
            if part in model_parts:
                return f"models ({part} {share:.0%} of the CPU time)", "more cores, a GPU, or a smaller model"
            return f"{part} ({share:.0%} of the CPU time)", ADVICE["decode" if on_gpus else "CPUs"]
        case "models" if model_parts:
            part, share = _largest(model_parts)
            name = f"models ({part} {share:.0%} of their time)" if len(model_parts) > 1 else "models"
            return name, ADVICE["models" if on_gpus else "actors"]
        case name:
            return LABELS.get(name, name), ADVICE[name]


def _largest(parts: dict[str, float]) -> tuple[str, float]:
    """The part that takes longest, and its share of all."""
    name = max(parts, key=lambda part: parts[part])
    return name, parts[name] / sum(parts.values())
