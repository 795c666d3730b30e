from pathlib import Path

import pyarrow.parquet as pq

from schemas.ledger import SourceFile
from workers.manifest.convert import to_parquet
from workers.manifest.files import ManifestFile
from workers.manifest.sources import Source


def test_other_formats_become_parquet_with_the_columns_of_their_rows(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"uri": "a.jpg"}\n{"uri": "b.jpg", "split": "train"}\n')
    uri = str(tmp_path / "m.jsonl")
    source = Source(SourceFile(uri=uri, size=0, version=""), uri, "jsonl", "/base")
    (file,) = to_parquet(source, str(tmp_path / "out" / "00000"))
    into = str(tmp_path / "out/00000-00000.parquet")
    assert file == ManifestFile(into, (2,), ("uri", "split"), "/base", "jsonl")
    assert pq.read_table(file.uri).to_pylist() == [
        {"uri": "a.jpg", "split": None},
        {"uri": "b.jpg", "split": "train"},
    ]
