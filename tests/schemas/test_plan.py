from hypothesis import given
from hypothesis import strategies as st

from schemas.plan import Plan, auto_unit_rows
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
    assert [auto_unit_rows(n) for n in rows] == [1, 1, 4, 62, 64, 64, 152, 512]


def test_a_shard_is_about_a_hundred_thousand_images() -> None:
    plan = Plan.of(1_000_000, UnitsSpec())
    assert (plan.unit_rows, plan.units, plan.shards) == (64, 15_625, 11)
    assert plan.rows_of_shard(0) == range(99_968)
    assert plan.rows_of_shard(10) == range(999_680, 1_000_000)
