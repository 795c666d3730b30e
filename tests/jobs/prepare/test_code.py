import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.prepare.code import MAKES_NO_ROWS, OF_MODELS, PARTS, ROOT, bare_code, code_of
from schemas.exceptions import OutputConflictError
from schemas.models import ResolvedModel
from schemas.tasks import ClassifierSpec, DetectorSpec
from tests.workers.tables.made_results import record
from workers.ledger.runs import assert_same_run
from workers.models.registry import PREDICTORS, SOURCES, load
from workers.models.tiled import MODULES
from workers.storage.store import Store

Edit = Callable[[str], str]


@pytest.fixture(scope="module")
def models() -> dict[str, ResolvedModel]:
    return {
        "classifier": load(ClassifierSpec()).resolved,
        "detector": load(DetectorSpec()).resolved,
    }


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with the code that rows depend on."""
    for package in ("schemas", "workers"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.safetensors"))
    return tmp_path


def refusal(output: Path, models: dict[str, ResolvedModel], copy: Path) -> list[str]:
    """What a run that was begun with the code here is refused for with that of the copy."""
    begun, now = (record(models=models, code=code_of(models, root)).identity() for root in (ROOT, copy))
    try:
        assert_same_run(Store(str(output)), begun, now)
    except OutputConflictError as error:
        return str(error).splitlines()[1:-1]
    return []


@pytest.mark.parametrize(
    ("file", "edit"),
    [
        ("workers/storage/s3.py", lambda text: text.replace('"""', '"""Mended: ', 1)),
        ("workers/decode/jpeg.py", lambda text: text + "\n\n# a comment\n"),
        ("workers/decode/jpeg.py", lambda text: text.replace("\n\n\n", "\n\n\n\n").replace("\n", "  \n", 3)),
        ("workers/fetch/throttle.py", lambda text: text.replace("\n    def ", "\n    # why\n    def ")),
        ("workers/ledger/heartbeat.py", lambda text: text + "\n\nMORE = 1\n"),
        ("workers/models/sources/torchvision_models.py", lambda text: text + "\n\nMORE = 1\n"),
        ("schemas/spec.py", lambda text: text + "\n\nMORE = 1\n"),
    ],
)
def test_a_run_resumes_after_a_change_that_no_row_of_it_depends_on(
    file: str, edit: Edit, models: dict[str, ResolvedModel], copy: Path, tmp_path: Path
) -> None:
    before = (copy / file).read_text()
    (copy / file).write_text(edit(before))
    assert (copy / file).read_text() != before
    assert refusal(tmp_path / "out", models, copy) == []


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["workers/storage/s3.py"], "reading and decoding: workers/storage/s3.py of"),
        (
            ["workers/decode/jpeg.py", "workers/decode/png.py", "workers/fetch/fetch.py"],
            "reading and decoding: workers/decode/jpeg.py and 2 more files of",
        ),
        (["workers/manifest/exact.py"], "manifest: workers/manifest/exact.py of"),
        (["workers/label/labeller.py"], "labelling: workers/label/labeller.py of"),
        (["schemas/tables.py"], "tables: schemas/tables.py of"),
        (["workers/models/classifier.py"], "classifier: workers/models/classifier.py of"),
        (["workers/models/sources/nanodet.py"], "detector: workers/models/sources/nanodet.py of"),
    ],
)
def test_a_change_that_may_make_other_rows_is_refused_with_its_part(
    files: list[str], named: str, models: dict[str, ResolvedModel], copy: Path, tmp_path: Path
) -> None:
    for file in files:
        (copy / file).write_text((copy / file).read_text() + "\n\nMORE = 1\n")
    assert refusal(tmp_path / "out", models, copy) == [
        f"  {named} raylabel changed since the run began, and may make other rows; the version that began it "
        "(see `raylabel` in run.json) resumes it"
    ]


def test_a_library_that_decodes_is_a_part_of_it(models: dict[str, ResolvedModel], tmp_path: Path) -> None:
    begun, now = record(models=models, code=code_of(models)), code_of(models)
    here, now["reading and decoding"]["pillow"] = now["reading and decoding"]["pillow"], "99.0"
    with pytest.raises(
        OutputConflictError,
        match=f"reading and decoding: pillow {here} there, 99.0 now; install what was there to resume",
    ):
        assert_same_run(Store(str(tmp_path)), begun.identity(), record(models=models, code=now).identity())


def test_a_part_that_only_one_side_knows_is_refused(models: dict[str, ResolvedModel], tmp_path: Path) -> None:
    begun = record(models=models, code=code_of(models))
    now = record(models=models, code={part: files for part, files in begun.code.items() if part != "tables"})
    with pytest.raises(OutputConflictError, match=r"tables: schemas/errors\.py and 12 more files"):
        assert_same_run(Store(str(tmp_path)), begun.identity(), now.identity())


def test_a_model_that_only_one_job_has_is_named_once(
    models: dict[str, ResolvedModel], tmp_path: Path
) -> None:
    alone = {"detector": models["detector"]}
    identities = [record(models=some, code=code_of(some)).identity() for some in (models, alone)]
    with pytest.raises(OutputConflictError) as refused:
        assert_same_run(Store(str(tmp_path)), *identities)
    assert str(refused.value).splitlines()[1:-1] == ["  classifier: efficientnet_lite0 there, nothing now"]


def test_a_model_of_the_users_depends_on_all_models_that_it_may_be_made_of(
    models: dict[str, ResolvedModel],
) -> None:
    own = models["detector"].model_copy(update={"modules": ("workers.models.sources.factory",)})
    assert "workers/models/sources/nanodet.py" in code_of({"detector": own})["detector"]


def test_each_module_is_in_one_part_or_makes_no_rows() -> None:
    parts = [path for paths in PARTS.values() for path in paths]
    predictors = [f"{kind.__module__.replace('.', '/')}.py" for kind in PREDICTORS.values()]
    modules = [*MODULES, *(module for source in SOURCES for module in source.modules)]
    builders = {f"{module.replace('.', '/')}.py" for module in modules}
    others = [name for name in builders if not name.startswith("workers/models/sources/")]
    paths = [*parts, *OF_MODELS, *predictors, *others, "workers/models/sources"]
    for file in sorted(path for package in ("schemas", "workers") for path in (ROOT / package).rglob("*.py")):
        name = str(file.relative_to(ROOT))
        places = [path for path in paths if name == path or name.startswith(f"{path}/")]
        is_needed = name not in MAKES_NO_ROWS and bare_code(file.read_text())
        assert len(places) == 1 or not is_needed, name
    assert [name for name in MAKES_NO_ROWS if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize(
    ("source", "bare"),
    [
        (
            '"""Words."""\n\nA = "# no comment"  # a comment\n"""What A is."""\n\n\n'
            'def f() -> str:\n    """More.\n\n    Lines."""\n    return A\n',
            'A = "# no comment"\ndef f() -> str:\n    return A',
        ),
        ('class A(B): """It."""\n', 'class A(B): """It."""'),
        ('x = 1; """One."""\ny = (\n    "text"\n)\n', 'x = 1; """One."""\ny = (\n    "text"\n)'),
        ('A = """a \n\n# b\n"""  # c\nB = 1\n', 'A = """a \n\n# b\n"""\nB = 1'),
        ('A = "\u2028 \x85 é"  # c\nB = 1  # d\n', 'A = "\u2028 \x85 é"\nB = 1'),
        ("@decorated  # why\ndef f(): ...\n", "@decorated\ndef f(): ..."),
    ],
)
def test_only_what_python_runs_is_compared(source: str, bare: str) -> None:
    assert bare_code(source) == bare
