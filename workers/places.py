"""Where the files and folders of a job's models lie."""

from schemas.spec import JobSpec
from schemas.spec_file import build_spec, value_at
from workers.storage.uris import absolute_uri


def with_absolute_places(spec: JobSpec) -> JobSpec:
    """A spec whose models are found from any working directory: their local paths are absolute.

    Processes that label start elsewhere where the cluster is not one's own.
    """
    values = spec.model_dump(mode="json", exclude_unset=True)
    for name, model in spec.models.items():
        for key, place in model.places.items():
            value_at(values, name)[key] = absolute_uri(place)
    return build_spec(values, "the job")


def places_of(spec: JobSpec) -> dict[str, str]:
    """The paths and URLs that a job's models name, by dotted keys."""
    return {
        f"{name}.{key}": place for name, model in spec.models.items() for key, place in model.places.items()
    }
