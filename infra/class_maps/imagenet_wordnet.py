"""Makes the class map `wordnet`: what people call the things that ImageNet's 1,000 classes are kinds of.

    python infra/class_maps/imagenet_wordnet.py /usr/share/wordnet/data.noun \
        > workers/models/class_maps/imagenet_wordnet.csv

WordNet 3.0 (Debian: `wordnet-base`) says what each class is a kind of: a tabby is a domestic cat, that a cat,
that a feline, and so on up to "entity". The map gives a class the nearest of these that is in `WORDS`, the
class itself included, and its own name where none is. `WORDS` is chosen by hand: everyday words, above breeds
and species, below "animal" and "vehicle". The format of WordNet's file is in `man 5 wndb`.
"""

import csv
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from timm.data import ImageNetInfo
from torchvision.models import MobileNet_V2_Weights

WORDS = {
    # animals
    **{
        word: word
        for word in ("antelope", "ape", "bear", "bird", "butterfly", "beetle", "camel", "crab", "dinosaur")
    },
    **{
        word: word
        for word in ("dog", "elephant", "fish", "fox", "frog", "goat", "horse", "insect", "kangaroo")
    },
    **{
        word: word for word in ("lemur", "lizard", "lobster", "monkey", "rabbit", "ray", "salamander", "seal")
    },
    **{
        word: word
        for word in ("shark", "sheep", "snake", "spider", "squirrel", "turtle", "whale", "wolf", "worm")
    },
    "big_cat": "big cat",
    "crocodilian_reptile": "crocodile",
    "domestic_cat": "cat",
    "swine": "pig",
    "wild_dog": "wild dog",
    "wildcat": "wild cat",
    # what moves
    "02958343": "car",  # not the railway's
    **{
        word: word
        for word in ("bicycle", "boat", "bus", "cart", "locomotive", "ship", "sled", "truck", "wagon")
    },
    "heavier-than-air_craft": "airplane",
    "sailing_vessel": "sailboat",
    # what is used
    **{
        word: word
        for word in ("bag", "ball", "basket", "bottle", "bowl", "box", "camera", "clock", "computer")
    },
    **{word: word for word in ("gun", "guitar", "jar", "jug", "keyboard", "knife", "pan", "pen", "piano")},
    **{word: word for word in ("pot", "telephone", "towel")},
    "hand_tool": "tool",
    # furniture, buildings
    **{word: word for word in ("bridge", "chair", "fence", "roof", "shop", "sofa", "table")},
    # what is worn
    **{
        word: word
        for word in ("coat", "hat", "helmet", "mask", "scarf", "shoe", "skirt", "sweater", "swimsuit")
    },
    "necktie": "tie",
    # what is eaten and drunk
    **{
        word: word
        for word in ("apple", "bread", "coffee", "sandwich", "sauce", "soup", "squash", "stew", "wine")
    },
    # the rest of the world
    **{word: word for word in ("flower", "mountain", "person")},
    "fungus": "mushroom",
    # what WordNet takes for a ball, bread and computers
    **{word: word.replace("_", " ") for word in ("bubble", "meat_loaf", "slide_rule", "web_site")},
}
"""Words by the first word of WordNet's synset, or by its offset where several synsets have that."""


@dataclass(frozen=True)
class Synset:
    """What several words mean.

    Attributes:
        words: them, the most frequent first; "_" for a space.
        kinds_of: the offsets of its hypernyms, what it is a kind of.
    """

    words: tuple[str, ...]
    kinds_of: tuple[str, ...]


def read_synsets(file: Path) -> dict[str, Synset]:
    """WordNet's synsets of nouns by their offsets, eight digits, which are the numbers of ImageNet's ids."""
    synsets = {}
    with file.open(encoding="latin-1") as lines:
        for line in lines:
            if not line.startswith(" "):  # the licence
                values = line.partition("|")[0].split()
                count = int(values[3], 16)
                pointers = values[4 + 2 * count :]
                kinds = [
                    pointers[at + 1]
                    for at in range(1, 4 * int(pointers[0]), 4)
                    if pointers[at] in ("@", "@i")
                ]
                synsets[values[0]] = Synset(tuple(values[4 : 4 + 2 * count : 2]), tuple(kinds))
    return synsets


def word_of(offset: str, synsets: Mapping[str, Synset]) -> str | None:
    """The word for a synset, or for the nearest one that it is a kind of; None where there is none."""
    level = [offset]
    while level:
        for one in level:
            if word := WORDS.get(one) or WORDS.get(synsets[one].words[0]):
                return word
        level = [kind for one in level for kind in synsets[one].kinds_of]
    return None


def rows(synsets: Mapping[str, Synset]) -> Iterator[tuple[str, str, str, str]]:
    """Of each class of ImageNet, in its order: WordNet's id, torchvision's name, timm's name, the word."""
    info = ImageNetInfo("imagenet-1k")
    for number, name in enumerate(MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]):
        wordnet_id = info.index_to_label_name(number)
        word = word_of(wordnet_id.removeprefix("n"), synsets) or name
        yield wordnet_id, name, info.index_to_description(number), word


def main(file: str) -> None:
    """Prints the map as CSV."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("wordnet_id", "class", "description", "name"))
    writer.writerows(rows(read_synsets(Path(file))))


if __name__ == "__main__":
    main(*sys.argv[1:])
