from dataclasses import replace

import pytest

from schemas.prediction import Costs
from tests.benchmarks import feeding
from tests.conftest import ROOT


def test_a_simulation_of_one_batch_is_the_sum_of_its_parts() -> None:
    costs = Costs(1.0, 0, fetch_cpu_s=0.25, decode_cpu_s=0.5, own_cpu_s=0.25, models={"model": 0.5})
    # two reads at once: 8 images are there after 1, 1, 2, 2, 3, 3, 4, 4 s; the one core takes 1 s each, until
    # 9 s; the GPU 4 s for all of them
    assert feeding.bundle_done(0.0, costs, 1, (1, 8), 2) == pytest.approx(13)
    assert feeding.bundle_done(100.0, costs, 4, (1, 8), 2) == pytest.approx(100 + 5 + 4)


@pytest.mark.parametrize("cpus", [4, 8, 32])
@pytest.mark.parametrize("wait", [0.01, 0.1])
@pytest.mark.parametrize("unit", [64, 512])
@pytest.mark.parametrize("at_once", [16, 256])
def test_the_plans_arithmetic_comes_to_what_the_simulation_does(
    cpus: int, wait: float, unit: int, at_once: int
) -> None:
    costs = replace(feeding.PHOTO, fetch_s=wait)
    simulated = feeding.simulated(costs, cpus, unit, at_once)
    assert feeding.reckoned(costs, cpus, unit, at_once) == pytest.approx(simulated, rel=0.15)


def test_the_scaling_page_has_the_tables_that_the_simulation_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    feeding.main()
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8").splitlines()
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(printed) > 30
    assert [line for line in printed if line not in page] == []
