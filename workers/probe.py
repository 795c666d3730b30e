"""A few images through the labelling process, timed step by step: what the driver asks for and gets back."""

from collections.abc import Callable
from dataclasses import dataclass

from schemas.locations import Location
from workers.child import Note
from workers.label import LabelSettings
from workers.places import reach


@dataclass(frozen=True)
class Probed:
    """What a process measured, in seconds over all the images that it was given.

    Attributes:
        images: how many.
        failed: of them failed, by code.
        example: one that failed and why; "" where none did.
        fetch_s: the mean from asking for a file until it is read; not of the first, which open connections.
        file_bytes: of all files.
        fetch_cpu_s: of a core.
        decode_cpu_s: of a core.
        models: by name; of a core where they run on the CPU, otherwise of the GPU.
        work_s: while it decoded and labelled, on the clock.
        work_cpu_s: of a core, in that time; less where other processes wanted the cores too.
    """

    images: int
    failed: dict[str, int]
    example: str
    fetch_s: float
    file_bytes: int
    fetch_cpu_s: float
    decode_cpu_s: float
    models: dict[str, float]
    work_s: float
    work_cpu_s: float


Request = list[Location] | None
"""First the locations of the images, which are fetched; then None: they are decoded and labelled."""


def prober(settings: LabelSettings) -> Callable[[Request, Note], Probed | None]:
    """What the child does: only there is torch imported."""
    from workers.prober import Prober

    reach(settings.places)
    built = Prober(settings)

    def answer(locations: Request, note: Note) -> Probed | None:
        if locations is None:
            return built.probed(note)
        built.fetch(locations)
        return None

    return answer


def gpu_counter(_: None) -> Callable[[None, Note], int]:
    """Another child, which tells how many GPUs there are: whoever asks a GPU's library cannot be forked."""
    import torch

    return lambda _, __: torch.cuda.device_count()
