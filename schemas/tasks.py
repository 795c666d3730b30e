"""The kinds of model that a job may have."""

from dataclasses import dataclass

from schemas.errors import Stage


@dataclass(frozen=True)
class Task:
    """What a model does with an image.

    Attributes:
        name: of such a model: its key in the job spec, the column of its fingerprint in the tables.
        stage: in which it runs.
    """

    name: str
    stage: Stage


CLASSIFY = Task("classifier", Stage.CLASSIFY)
DETECT = Task("detector", Stage.DETECT)

TASKS = (CLASSIFY, DETECT)
"""Every kind, in the order in which an image passes them."""
