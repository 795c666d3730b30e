import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.exports.names import file_name
from jobs.results.images import ImageRow

IMAGE = ImageRow(12, None, "/a.jpg", "k", 1, 1, "JPEG", 1, b"", 1)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://bucket/photos/beach.jpeg", "00000012-beach.jpg"),
        ('/x/one & <two> "three" it\'s.jpg', "00000012-one_two_three_it_s.jpg"),
        ("/x/été, plage.v2.JPG", "00000012-ete_plage_v2.jpg"),
        ("/x/写真.jpg", "00000012-image.jpg"),
        ("tar://in/b.jpg::s3://x/a.tar", "00000012-b.jpg"),
        ("parquet://image/12::s3://x/p.parquet", "00000012-12.jpg"),
        ("data:image/png;base64,iVBORw0KGgo/AAA…", "00000012-image.jpg"),
        ("https://host/", "00000012-image.jpg"),
        ("/x/..", "00000012-image.jpg"),
        ("/x/" + "a" * 300, f"00000012-{'a' * 60}.jpg"),
    ],
)
def test_a_name_is_the_row_and_what_is_legal_of_the_images_own_name(uri: str, name: str) -> None:
    assert file_name(replace(IMAGE, uri=uri)) == name


@pytest.mark.parametrize(
    ("form", "turn", "ending"),
    [
        ("JPEG", 1, "jpg"),
        ("JPEG", 6, "jpg"),
        ("PNG", 1, "png"),
        ("WEBP", 1, "webp"),
        ("WEBP", 6, "png"),
        ("TIFF", 1, "tif"),
        ("JPEG2000", 1, "jp2"),
    ],
)
def test_the_ending_is_that_of_what_a_copy_is(form: str, turn: int, ending: str) -> None:
    name = file_name(replace(IMAGE, format=form, exif_orientation=turn))
    assert name == f"00000012-a.{ending}"


@given(st.text(max_size=200), st.integers(0, 10**12))
def test_a_name_of_any_uri_is_legal_everywhere(uri: str, index: int) -> None:
    name = file_name(replace(IMAGE, uri=uri, manifest_index=index))
    assert re.fullmatch(r"\d{8,}-[A-Za-z0-9_-]{1,60}\.jpg", name)
    assert int(name.partition("-")[0]) == index
