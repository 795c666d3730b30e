from pathlib import Path

import pytest

from tests.jobs.exports.made_run import write_run


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The run of `made_run`; tests only read it."""
    return write_run(tmp_path_factory.mktemp("made run"))


@pytest.fixture
def photos(run: str) -> Path:
    """The folder that `made_run.uri_of` takes."""
    return Path(run).parent


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hugging Face's caches are in a folder of the test."""
    import datasets

    for name in ("HF_CACHE_HOME", "HF_DATASETS_CACHE", "HF_MODULES_CACHE"):
        monkeypatch.setattr(datasets.config, name, str(tmp_path / "cache"))
