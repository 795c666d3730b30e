"""Images that look like what words say: a run whose embedder is a folder of CLIP's, against transformers."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("transformers", reason="needs raylabel[transformers]")

from jobs.cli.app import app
from jobs.search.build import make_index
from jobs.search.searcher import Searcher
from schemas.exceptions import ModelError, SpecError
from schemas.tasks import EmbedderSpec
from tests.jobs.search.documented_run import vector_of, write_documented_run
from tests.jobs.serve.conftest import serving
from tests.workers.models.transformers.made import EMBEDDERS, make
from tests.workers.models.transformers.made_texts import make_for_texts
from workers.models.registry import load
from workers.models.transformers.network import quiet_and_offline

LABELLED = [row for row in range(200) if row % 5 != 4]
TEXT = "A red car at night"


def with_embedder(output: str, folder: Path) -> str:
    """A run's record with a folder for its embedder, whose embeddings are 8 numbers, too."""
    file = Path(output, "run.json")
    values = json.loads(file.read_text())
    section = EmbedderSpec(model=f"{folder}/")
    values["spec"] |= {"manifest": {"uri": "photos.csv"}, "output": "run", "embedder": section.model_dump()}
    values["models"]["embedder"] = load(section).resolved.model_dump(mode="json")
    file.write_text(json.dumps(values))
    make_index(output)
    return output


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_for_texts("clip", tmp_path_factory.mktemp("folders") / "clip", projection_dim=8)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> str:
    return with_embedder(write_documented_run(str(tmp_path_factory.mktemp("run"))), clip)


@pytest.fixture(scope="module")
def vector(clip: Path) -> np.ndarray:
    """The text's, as transformers' documentation gets it."""
    with quiet_and_offline() as transformers, torch.inference_mode():
        tokens = transformers.AutoTokenizer.from_pretrained(clip)([TEXT], padding=True, return_tensors="pt")
        network = transformers.CLIPModel.from_pretrained(clip)
        features = network.get_text_features(**tokens).pooler_output[0]
    found: np.ndarray = (features / features.norm()).numpy()
    return found


@pytest.fixture(scope="module")
def searcher(output: str) -> Iterator[Searcher]:
    with Searcher(output) as searcher:
        yield searcher


def alike(vector: np.ndarray, rows: list[int]) -> list[int]:
    return sorted(rows, key=lambda row: -float(vector_of(row) @ vector))


def test_the_images_nearest_to_a_text_are_found(searcher: Searcher, vector: np.ndarray) -> None:
    assert searcher.takes_texts
    with searcher.search("") as hits:
        found = searcher.similar_to_text(hits, TEXT, 10)
    assert [each.row for each in found] == alike(vector, LABELLED)[:10]
    assert [each.similarity for each in found] == pytest.approx(
        [float(vector_of(each.row) @ vector) for each in found], abs=1e-5
    )


def test_a_query_narrows_what_a_text_is_compared_with(searcher: Searcher, vector: np.ndarray) -> None:
    with searcher.search("person -cat") as hits:
        rows = [int(row) for row in hits.rows()]
        hits.narrow(searcher.similar_to_text(hits, TEXT, 7))
        assert 7 < len(rows) < len(LABELLED)
        assert [hit.manifest_index for hit in hits.first(99)] == alike(vector, rows)[:7]
        assert hits.compared == len(rows)


def test_one_process_encodes_all_texts_of_a_searcher(searcher: Searcher) -> None:
    with searcher.search("") as hits:
        first = searcher.similar_to_text(hits, TEXT, 3)
        child = searcher._text_vectors._child
        assert searcher.similar_to_text(hits, "cat", 3) != first
        assert searcher._text_vectors._child is child is not None


def test_the_command_prints_them_and_its_json_says_how_alike_they_are(
    output: str, vector: np.ndarray
) -> None:
    result = CliRunner().invoke(app, ["search", output, "person", "--text", TEXT, "--limit", "3", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [hit["similarity"] for hit in found["hits"]] == pytest.approx(
        [float(vector_of(hit["manifest_index"]) @ vector) for hit in found["hits"]], abs=1e-5
    )
    assert (found["query"], found["total"]) == ("person", 3)


@pytest.fixture(scope="module")
def client(output: str) -> Iterator[httpx.Client]:
    with serving(output) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def test_the_page_finds_the_same_and_says_the_command(client: httpx.Client, vector: np.ndarray) -> None:
    found = client.get("/api/search", params={"text": TEXT, "limit": 5}).json()
    assert [hit["manifest_index"] for hit in found["hits"]] == alike(vector, LABELLED)[:5]
    page = client.get("/", params={"text": TEXT, "q": "person"}).text
    assert f'name="text" type="search" value="{TEXT}"' in page
    assert "--text=A red car at night" in page
    assert "most alike of " in page
    assert "All that the query finds" in page
    assert "/image/" in page
    row = found["hits"][0]["manifest_index"]
    image = client.get(f"/image/{row}", params={"text": TEXT, "at": "0"}).text
    assert f"text={TEXT.replace(' ', '+')}" in image  # the way back, and to the next


def test_what_is_wrong_with_a_text_is_said_on_the_page(client: httpx.Client) -> None:
    answer = client.get("/api/search", params={"text": "car " * 99})
    assert answer.status_code == 400
    assert answer.json()["error"].endswith("takes at most 77; shorten it")
    assert "takes at most 77; shorten it" in client.get("/", params={"text": "car " * 99}).text


def refusal(output: str, text: str = TEXT) -> str:
    with (
        Searcher(output) as searcher,
        searcher.search("") as hits,
        pytest.raises((SpecError, ModelError)) as refused,
    ):
        searcher.similar_to_text(hits, text, 3)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_no_text_is_refused(output: str) -> None:
    assert refusal(output, " ") == (
        "--text is empty. Allowed is what a photo may show, in words, such as 'a red car at night'"
    )


def test_bytes_that_are_no_text_are_refused(output: str) -> None:
    assert refusal(output, "a red \udcff").startswith(
        "--text 'a red \\udcff' is no Unicode text. Allowed is "
    )


def test_an_embedder_without_a_half_for_texts_is_refused_in_a_sentence(tmp_path: Path) -> None:
    vision = make(EMBEDDERS["clip vision"], tmp_path / "vision")
    output = with_embedder(write_documented_run(str(tmp_path / "run")), vision)
    with Searcher(output) as searcher:
        assert not searcher.takes_texts
    assert refusal(output) == (
        f"--text: {vision} (CLIPVisionModelWithProjection) has no half for texts; allowed: a folder of CLIP "
        "or SigLIP with its tokenizer, as in `embedder: ./siglip2/`, or an ONNX file with `text_model`"
    )
    with serving(output) as address:
        assert 'name="text"' not in httpx.get(f"{address}/", timeout=60).text


def test_a_folder_that_is_gone_or_changed_is_refused_and_found_when_it_is_back(
    tmp_path: Path, clip: Path
) -> None:
    folder = Path(shutil.copytree(clip, tmp_path / "clip"))
    output = with_embedder(write_documented_run(str(tmp_path / "run")), folder)
    with Searcher(output) as searcher, searcher.search("") as hits:
        folder.rename(tmp_path / "away")
        with pytest.raises(ModelError, match=f"^--text: there is no folder {folder}$"):
            searcher.similar_to_text(hits, TEXT, 3)
        (tmp_path / "away").rename(folder)
        assert len(searcher.similar_to_text(hits, TEXT, 3)) == 3
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"note": 1}))
    assert refusal(output).startswith(f"--text: {folder} has changed since the run: its sha256 is ")
