"""Rows of STS-B from a mirror and from files of one's own; what is trained on, held out, measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ftagent.core.context import HubAccess, ScenarioContext
from ftagent.core.errors import RequestError
from ftagent_hpo.stsb_data import StsbData

from .sentences import write_pairs

ORIGINAL = 'main-captions\tMSRvid\t2012test\t0001\t{score}\t"A {name}\tB {name} {number}\n'


def data(tmp_path: Path, path: str = "", split: str = "train", **context: object) -> StsbData:
    return StsbData(ScenarioContext(files_path=tmp_path / "files", **context), split, path)  # type: ignore[arg-type]


def test_a_mirror_in_the_scale_of_the_original(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        lines = [f"{name} a{index},{name} b{index},{index % 6}\n" for index in range(30)]
        (tmp_path / f"{name}.csv").write_text("".join(lines))
    columns, splits = ["sentence1", "sentence2", "score"], {"train": "train", "validation": "dev", "test": "test"}
    entry = {"config": "default", "format": "csv", "columns": columns, "header": False, "score_scale": 5.0,
             "splits": {split: [f"{name}.csv"] for split, name in splits.items()}}  # fmt: skip
    index = {"schema_version": 1, "datasets": {"sentence-transformers/stsb": entry}}
    (tmp_path / "mirror.json").write_text(json.dumps(index))
    found = data(tmp_path, hub=HubAccess(mirror=tmp_path))
    assert [pair.score for pair in found.items("validation")][:6] == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert found.items("test")[3].sentence1 == "test a3"
    (tmp_path / "dev.csv").write_text("a,b,high\n")
    with pytest.raises(RequestError, match="a row has no number as score: 'high'"):
        data(tmp_path, hub=HubAccess(mirror=tmp_path)).items("validation")


def test_files_of_the_original_release(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        text = "".join(ORIGINAL.format(name=name, number=n, score=n % 6) for n in range(12))
        (tmp_path / f"sts-{name}.csv").write_text(text)
    found = data(tmp_path, str(tmp_path)).items("test")
    assert (found[5].sentence1, found[5].sentence2, found[5].score) == ('"A test', "B test 5", 1.0)


def test_a_header_names_the_columns_and_scores_may_be_from_0_to_1(tmp_path: Path) -> None:
    for name in ("train", "validation", "test"):
        lines = [f"{n / 10}\t{name} {n}\tx\tother {n}\n" for n in range(11)]
        (tmp_path / f"{name}.tsv").write_text("Score\tsentence1\tgenre\tsentence2\n" + "".join(lines))
    found = data(tmp_path, str(tmp_path)).items("validation")
    assert (found[4].sentence1, found[4].sentence2, found[4].score) == ("validation 4", "other 4", 0.4)


def test_held_out_pairs_are_not_trained_on_and_measured_ones_neither(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "data", 60)
    dev = (folder / "dev.csv").read_text().splitlines()[1]
    one, other, score = dev.split(",")
    with (folder / "train.csv").open("a") as out:
        out.write(f"{other.upper()}, {one} ,{score}\n")  # the same pair, the other way round
    part = data(tmp_path, str(folder), "train[:20]")
    training, held_out = part.training
    assert (len(training), len(held_out)) == (20, 40)
    whole = data(tmp_path, str(folder))
    training, held_out = whole.training
    assert (len(training), len(held_out)) == (54, 6)
    assert not {pair.id for pair in training} & {pair.id for pair in held_out}
    assert "train-60" not in {pair.id for pair in [*training, *held_out]}
    again = data(tmp_path, str(folder))
    assert again.files() == whole.files()
    assert len(whole.files()[0].read_text().splitlines()) == 54


def test_limit_takes_a_seeded_subset(tmp_path: Path) -> None:
    folder = str(write_pairs(tmp_path / "data"))
    found = [data(tmp_path, folder, limit=8, seed=seed).items("validation") for seed in (0, 0, 1)]
    assert len(found[0]) == 8
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("dev.csv", "", "dev.csv: is empty"),
        ("dev.csv", "sentence1,sentence2\na,b\n", "dev.csv:1: has no column score; it has: sentence1, sentence2"),
        ("dev.csv", "a,b,1\na,b\n", "dev.csv:2: 2 columns, expected 3"),
        ("dev.csv", "a,b,c\n", "dev.csv:1: row 0 has no sentence1, sentence2 and a number as score"),
        ("dev.csv", "a,b,6\n", "dev.csv:1: row 0: score 6 is not from 0 to 5"),
        ("dev.csv", "a,b,nan\n", "score nan is not from 0 to 5"),
        ("devel.tsv", "a\tb\t1\n", "2 files .csv or .tsv with dev or valid in the name; one is needed"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    folder = write_pairs(tmp_path / "data")
    (folder / name).write_text(text)
    with pytest.raises(RequestError) as error:
        data(tmp_path, str(folder)).items("validation")
    assert words in str(error.value)


def test_a_split_without_rows_and_a_folder_that_is_not_there(tmp_path: Path) -> None:
    folder = str(write_pairs(tmp_path / "data"))
    with pytest.raises(RequestError, match="STSB_TRAIN_SPLIT: 0 of 60 pairs are left to train on"):
        _ = data(tmp_path, folder, "train[60:]").training
    with pytest.raises(RequestError, match=r"STSB_PATH .*/nowhere: no such folder"):
        data(tmp_path, str(tmp_path / "nowhere")).items("test")
