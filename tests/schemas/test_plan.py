import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.plan import Pass, Plan, auto_unit_rows, make_bundles
from schemas.spec import UnitsSpec

plans = st.builds(
    Plan, rows=st.integers(0, 5_000), unit_rows=st.integers(1, 300), shard_units=st.integers(1, 40)
)


@given(plans)
def test_every_row_is_in_exactly_one_unit_and_one_shard(plan: Plan) -> None:
    by_unit = [row for unit in range(plan.units) for row in plan.rows_of_unit(unit)]
    by_shard = [row for shard in range(plan.shards) for row in plan.rows_of_shard(shard)]
    assert by_unit == list(range(plan.rows))
    assert by_shard == by_unit


@given(plans)
def test_a_unit_is_in_the_shard_that_lists_it(plan: Plan) -> None:
    listed = {unit: shard for shard in range(plan.shards) for unit in plan.units_of_shard(shard)}
    assert listed == {unit: plan.shard_of(unit) for unit in range(plan.units)}


def test_a_short_manifest_is_cut_small_and_a_long_one_large() -> None:
    rows = [1, 7, 64, 1_000, 5_000, 4_000_000, 10_000_000, 1_000_000_000]
    assert [auto_unit_rows(n) for n in rows] == [1, 1, 4, 62, 128, 128, 152, 512]


def test_a_shard_is_about_a_hundred_thousand_images() -> None:
    plan = Plan.of(1_000_000, UnitsSpec())
    assert (plan.unit_rows, plan.units, plan.shards) == (128, 7_813, 11)
    assert plan.rows_of_shard(0) == range(99_968)
    assert plan.rows_of_shard(10) == range(999_680, 1_000_000)


@given(plans, st.data())
def test_the_work_of_a_retry_is_its_rows_by_unit_and_by_shard(plan: Plan, data: st.DataObject) -> None:
    rows = sorted(data.draw(st.sets(st.integers(0, plan.rows - 1), max_size=50))) if plan.rows else []
    work = Pass(plan, np.array(rows, np.int64))
    assert work.size == len(rows)
    assert [row for unit in work.units.tolist() for row in work.rows_of_unit(unit)] == rows
    assert [row for shard in work.shards for row in work.rows_of_shard(shard)] == rows
    assert [unit for shard in work.shards for unit in work.units_of_shard(shard)] == work.units.tolist()


@given(plans)
def test_the_work_of_the_first_pass_is_every_row(plan: Plan) -> None:
    work = Pass(plan)
    assert (work.size, work.units.tolist()) == (plan.rows, list(range(plan.units)))
    assert work.shards == list(range(plan.shards))
    assert all(work.rows_of_unit(unit) == plan.rows_of_unit(unit) for unit in range(plan.units))


@given(st.sets(st.integers(0, 10_000), max_size=2000), st.integers(1, 600), st.integers(1, 300))
def test_bundles_are_all_units_once_and_in_order_and_end_with_single_ones(
    units: set[int], unit_rows: int, actors: int
) -> None:
    found = make_bundles(np.array(sorted(units), np.int64), unit_rows, actors, "cpu").to_pylist()
    assert [unit for bundle in found for unit in bundle] == sorted(units)
    assert all(len(bundle) == 1 or len(bundle) * unit_rows <= 512 for bundle in found)
    assert all(len(bundle) == 1 for bundle in found[-actors:])


def test_a_short_run_is_handed_out_by_single_units_and_a_long_one_by_512_rows() -> None:
    assert make_bundles(np.arange(16), 62, actors=2, device="cpu").to_pylist() == [
        [unit] for unit in range(16)
    ]
    sizes = [len(bundle) for bundle in make_bundles(np.arange(1000), 64, actors=2, device="cpu").to_pylist()]
    assert sizes[:6] == [1, 2, 2, 3, 3, 4]
    assert sizes[14:100] == [8] * 86
    assert sizes[-32:] == sorted(sizes[-32:], reverse=True)


def test_a_gpu_is_handed_more_at_once() -> None:
    bundles = make_bundles(np.arange(1000), 64, actors=2, device="cuda").to_pylist()
    assert max(map(len, bundles)) > 512 // 64
    assert (
        max(map(len, make_bundles(np.arange(100_000), 64, actors=2, device="cuda").to_pylist())) == 4096 // 64
    )
