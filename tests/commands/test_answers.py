"""What `lotlip search` prints and writes of its answers."""

from types import SimpleNamespace

import pytest

from modeling_lotlip.commands.search import WEAK, describe_result, format_answers, read_texts, say_if_all_are_shown
from modeling_lotlip.search.arguments import SearchArguments
from modeling_lotlip.search.searcher import Result


def make_hit(rank: int, key: str, weak: bool = False, **others: object) -> dict:
    return {"rank": rank, "similarity": 0.5 - 0.1 * rank, "key": key, "weak": weak, "copies": [], **others}


def make_answer(*results: dict, truncated: bool = False, unknown_words: tuple = ()) -> dict:
    answer = {"query": "a boat", "truncated": truncated, "unknown_words": list(unknown_words)}
    return answer | {"results": list(results)}


def test_weak_results_stand_below_a_line_and_strong_ones_above():
    answer = make_answer(make_hit(1, "a.jpg"), make_hit(2, "b.jpg", weak=True))
    lines = format_answers([answer]).splitlines()
    assert lines == ["a boat", "    1   0.4000   a.jpg", f"      {WEAK}:", "    2   0.3000   b.jpg"]


@pytest.mark.parametrize("weak", [True, False])
def test_results_of_one_kind_have_a_line_only_if_they_are_weak(weak):
    lines = format_answers([make_answer(make_hit(1, "a.jpg", weak=weak))]).splitlines()
    assert (f"      {WEAK}:" in lines) == weak


def test_what_was_not_read_of_a_text_is_said():
    lines = format_answers([make_answer(truncated=True, unknown_words=("xyz", "abc"))]).splitlines()
    assert lines == ["a boat (truncated)", "      The model does not know: xyz, abc."]


@pytest.mark.parametrize("folder", [None, "photos"])
def test_copies_are_counted_and_listed_where_there_is_room(folder):
    copy = {"key": "c.jpg", "path": "/photos/c.jpg", "similarity": 0.25, "position": 2}
    hit = make_hit(1, "a.jpg", path="/photos/a.jpg", position=3, copies=[copy])
    lines = format_answers([make_answer(hit)], folder).splitlines()
    if folder is None:
        assert lines[1:] == [
            "    1   0.4000   /photos/a.jpg   caption 3   (+ 1 nearly the same)",
            "        0.2500   /photos/c.jpg   caption 2",
        ]
    else:
        assert lines[1:] == ["    1   0.4000   photos/a.jpg   caption 3   (+ 1 nearly the same)"]


@pytest.mark.parametrize(
    ("k", "num_searched", "num_shown", "said"),
    [
        (5, 9, 5, ""),
        (5, 3, 5, ""),
        (5, 3, 3, "--k 5 is more than there are: all 3 images are shown.\n"),
        (5, 1, 1, "--k 5 is more than there are: 1 image is shown.\n"),
        (5, 9, 3, "--k 5 is more than there are: all 9 images are shown as 3 results, with their copies.\n"),
    ],
)
def test_more_results_than_there_are_are_said(capsys, k, num_searched, num_shown, said):
    say_if_all_are_shown(SimpleNamespace(k=k, kind="image"), num_searched, num_shown)
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(("kind", "source"), [("image", "/photos"), ("short", {"dataset_name": "a"})])
def test_a_result_is_described_by_its_file_or_its_caption(kind, source):
    result = Result("a.jpg", 3, 0.5, True, copies=[Result("b.jpg", 1, 0.25)])
    described = describe_result(result, kind, source)
    expected = {"similarity": 0.5, "key": "a.jpg", "weak": True, "copies": [{"key": "b.jpg", "similarity": 0.25}]}
    if kind == "image":
        expected["path"] = "/photos/a.jpg"
        expected["copies"][0]["path"] = "/photos/b.jpg"
    else:
        expected["position"] = 3
        expected["copies"][0]["position"] = 1
    assert described == expected


def test_a_file_of_texts_without_a_text_is_refused(tmp_path):
    (tmp_path / "texts.txt").write_text(" \n")
    with pytest.raises(ValueError, match="texts.txt holds no text: write one on each line"):
        read_texts(SearchArguments(photos="photos", texts_file=tmp_path / "texts.txt"))
    (tmp_path / "texts.txt").write_text("a car\n")
    assert read_texts(SearchArguments(photos="photos", texts=["a boat"], texts_file=tmp_path / "texts.txt")) == [
        "a boat",
        "a car",
    ]
