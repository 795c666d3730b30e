from jobs.cluster.connect import NO_PROGRESS_TIMEOUT_S
from schemas.plan import MAX_UNIT_ROWS
from workers.label.supervise import MAX_ATTEMPTS
from workers.process.child import HANG_TIMEOUT_S


def test_an_image_that_hangs_is_found_before_the_job_is_taken_for_stuck() -> None:
    halvings = MAX_UNIT_ROWS.bit_length()
    assert (MAX_ATTEMPTS + halvings + MAX_ATTEMPTS) * HANG_TIMEOUT_S < NO_PROGRESS_TIMEOUT_S
