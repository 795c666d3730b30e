"""What the folders of a file say of it, as Hive writes its partitions."""

from urllib.parse import unquote

from workers.manifest.files import Partitions
from workers.storage.uris import text_of


def partitions_of(name: str, root: str) -> Partitions:
    """Returns what the folders of a file say of its rows, as Hive writes them: `year=2024/kind=a%2Fb/`.

    Args:
        name: the path of the file.
        root: the folder that was named: those above it say nothing.
    """
    folders = name.removeprefix(root).split("/")[:-1]
    pairs = (folder.partition("=") for folder in folders)
    values = {text_of(unquote(key)): _value(value) for key, equals, value in pairs if key and equals}
    return tuple(values.items())


def _value(text: str) -> str | None:
    return None if text == "__HIVE_DEFAULT_PARTITION__" else text_of(unquote(text))
