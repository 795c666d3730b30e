from jobs.cluster.connect import NO_PROGRESS_TIMEOUT_S
from schemas.plan import MOST_UNIT_ROWS
from workers.label.supervise import TRIES
from workers.process.child import SILENCE_S


def test_an_image_that_hangs_is_found_before_the_job_is_taken_for_stuck() -> None:
    halvings = MOST_UNIT_ROWS.bit_length()
    assert (TRIES + halvings + TRIES) * SILENCE_S < NO_PROGRESS_TIMEOUT_S
