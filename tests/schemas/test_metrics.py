import re

from schemas.metrics import COMMIT, METRICS, NO_USAGE, STAGES, Usage


def test_names_follow_prometheus() -> None:
    """https://prometheus.io/docs/practices/naming/."""
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"ray_raylabel(_[a-z]+)+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.unit in {"images", "bytes", "seconds"}
        assert metric.unit == "images" or f"_{metric.unit}" in metric.name
        assert metric.labels[0] == "run"
        assert all(re.fullmatch(r"[a-z]+", label) for label in metric.labels)


def test_what_was_spent_adds_up_and_comes_back_from_json() -> None:
    one = Usage(fetched_bytes=5, stage_s={STAGES[0]: 1.5, COMMIT: 0.5}, busy_s=1, idle_s=2)
    other = Usage(fetched_bytes=7, stage_s={STAGES[0]: 0.5, STAGES[1]: 0.25}, idle_s=0.5)
    both = Usage(fetched_bytes=12, stage_s={STAGES[0]: 2, STAGES[1]: 0.25, COMMIT: 0.5}, busy_s=1, idle_s=2.5)
    assert one + other == other + one == both
    assert both + NO_USAGE == both
    assert Usage.model_validate_json(both.model_dump_json()) == both


def test_ray_is_given_the_name_without_what_it_puts_before_it() -> None:
    for metric in METRICS:
        assert f"ray_{metric.own_name}" == metric.name
