"""Small parts of the search page, each by itself: limits of texts, of uploads and of passwords."""

import base64
import io
import os
import re
from datetime import date, datetime
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from modeling_lotlip.search.arguments import MIN_PASSWORD_LENGTH, Filter, read_logins
from modeling_lotlip.search.guard import delete_oldest, find_paths, is_uploaded
from modeling_lotlip.search.handlers import MAX_CHARACTERS, check_text, encode_image, read_field, render
from modeling_lotlip.search.index import Changes
from modeling_lotlip.search.query import Query, QueryError
from modeling_lotlip.search.searcher import Searcher
from modeling_lotlip.table.measurements import Measurements, write_measurements
from modeling_lotlip.table.storage import EmbeddingTable


def test_a_text_has_as_many_characters_as_it_may():
    check_text("a" * MAX_CHARACTERS)
    with pytest.raises(QueryError, match="This text has 20,001 characters: the max is 20,000"):
        check_text("a" * (MAX_CHARACTERS + 1))


@pytest.mark.parametrize("half", ["\ud800", "\udfff"])
def test_half_of_a_character_is_none(half):
    check_text("\ud7ff\ue000 😀")
    with pytest.raises(QueryError, match="holds half of a character"):
        check_text(f"a {half}")


@pytest.mark.parametrize(("request_of_page", "expected_type"), [({"name": "a"}, str), ({"name": ["a"]}, list)])
def test_a_field_of_a_request_has_its_type(request_of_page, expected_type):
    assert read_field(request_of_page, "name", expected_type) == request_of_page["name"]
    other_type = {str: list, list: str}[expected_type]
    for wrong in (None, [], {}, {"other": "a"}):
        with pytest.raises(QueryError, match="The request has no name"):
            read_field(wrong, "name", expected_type)
    with pytest.raises(QueryError, match="The request has no name"):
        read_field(request_of_page, "name", other_type)


@pytest.mark.parametrize(("size", "image_format"), [((127, 3), "png"), ((3, 128), "jpeg")])
def test_a_small_image_is_shown_without_loss(size, image_format):
    header, _, data = encode_image(Image.new("RGB", size)).partition(",")
    assert header == f"data:image/{image_format};base64"
    opened = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (opened.format.lower(), opened.size) == (image_format, size)


@pytest.mark.parametrize(("num_read", "is_truncated"), [(1, True), (2, False)])
def test_a_query_is_truncated_if_a_word_is_not_read(num_read, is_truncated):
    assert Query(torch.zeros(1), ["a", "boat"], num_read).is_truncated == is_truncated


def test_what_is_rendered_is_escaped():
    assert re.search("&lt;b&gt;", render("message", text="<b>"))


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        (b"[]", []),
        (b'{"path": "a"}', ["a"]),
        (b'{"data": [{"path": "a", "more": {"path": null}}, {"paths": "b"}]}', [None, "a"]),
        (b'{"path": "a", "path": "b"}', ["a", "b"]),
    ],
    ids=["none", "one", "one in another", "one after another"],
)
def test_every_path_of_a_request_is_found(body, paths):
    assert find_paths(body) == paths


def test_a_path_is_uploaded_if_it_and_what_it_links_to_are(tmp_path):
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    (uploads / "a.png").touch()
    (tmp_path / "b.png").touch()
    (uploads / "link.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "outside.png").symlink_to(uploads / "a.png")
    inside = [uploads / "a.png", uploads / "link.png"]
    outside = [tmp_path / "outside.png", uploads / ".." / "b.png", tmp_path / "b.png"]
    assert [is_uploaded(str(name), uploads) for name in inside] == [True, False]
    assert not any(is_uploaded(str(name), uploads) for name in outside)
    assert not is_uploaded(None, uploads)
    assert not is_uploaded(uploads / "a.png", uploads), "a path of a request is a text"


@pytest.mark.parametrize(("max_bytes", "kept"), [(6, "abc"), (5, "bc"), (4, "bc"), (2, "c"), (1, "")])
def test_the_oldest_uploads_make_room(tmp_path, max_bytes, kept):
    for age, name in enumerate("cba"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(b"12")
        os.utime(tmp_path / name / name, (1000 - age, 1000 - age))
    delete_oldest(tmp_path, max_bytes)
    assert "".join(sorted(path.name for path in tmp_path.rglob("*") if path.is_file())) == kept


@pytest.mark.parametrize(("length", "is_refused"), [(MIN_PASSWORD_LENGTH, False), (MIN_PASSWORD_LENGTH - 1, True)])
def test_a_password_has_eight_characters(tmp_path, length, is_refused):
    path = tmp_path / "users"
    path.write_text(f"\n anna :{'x' * length}\n")
    path.chmod(0o600)
    if is_refused:
        with pytest.raises(ValueError, match=f"{path}, line 2: write USER:PASSWORD, each user once, with at least 8"):
            read_logins(path)
    else:
        assert read_logins(path) == [("anna", "x" * 8)]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_of_users_is_for_its_owner_alone(tmp_path, mode):
    path = tmp_path / "users"
    path.write_text("anna:12345678\n")
    path.chmod(mode)
    with pytest.raises(ValueError, match="can be read by others: `chmod 600"):
        read_logins(path)


@pytest.fixture
def searcher(tmp_path) -> Searcher:
    """Of three images, of which the first one alone has a date, that are said to lie in a folder."""
    table = EmbeddingTable.create(tmp_path / "table", 3, {"kinds": ["image"]})
    rows = []
    for name, embedding in zip(["trip/a.jpg", "trip/b.jpg", "c.jpg"], torch.eye(3)):
        rows.append({"key": name, "embedding": embedding})
    rows[0]["taken"] = datetime(2024, 5, 31)
    table.append(rows)
    encoder = SimpleNamespace(preprocessing=SimpleNamespace(resizing=None))
    return Searcher(encoder, table, tmp_path / "photos")


def test_what_an_update_has_changed_is_said_with_what_was_left_out(searcher, tmp_path):
    assert searcher.describe() == [f"3 images in {tmp_path}/photos."]
    searcher.changes = Changes(new=1000, moved=1, changed=2, deleted=3, left_out=["Other files."])
    assert searcher.describe()[1:] == ["Updated: 1,000 new, 1 moved or copied, 2 changed, 3 deleted.", "Other files."]
    searcher.changes = Changes(deleted=1)
    assert searcher.describe()[1:] == ["Updated: 1 deleted."]


@pytest.mark.parametrize(("kind", "described"), [("short", "2 short captions"), ("long", "1 long caption")])
def test_captions_that_are_searched_are_not_called_images(searcher, tmp_path, kind, described):
    table = EmbeddingTable.create(tmp_path / "texts", 3, {"kinds": ["short", "long"]})
    rows = []
    for row_kind, embedding in zip(["short", "short", "long"], torch.eye(3)):
        rows.append({"key": "a/b.jpg", "kind": row_kind, "embedding": embedding})
    table.append(rows)
    of_texts = Searcher(searcher.encoder, table)
    (line,) = of_texts.describe(kind=kind)
    assert line.startswith(f"{described} in ")
    with pytest.raises(QueryError, match=f"no {kind} captions in the folder c. .* has 0 {kind} captions"):
        of_texts.count(Filter("c"), kind)


@pytest.mark.parametrize(
    ("chosen", "searched", "undated"),
    [
        (Filter("trip"), "of which 2 are in the folder trip", []),
        (Filter(None, date(2024, 5, 1)), "of which 1 is taken from 2024-05-01", ["Left out, 2 images without a date"]),
        (Filter("trip", date(2024, 5, 1)), "of which 1 is in the folder", ["Left out, 1 image without a date"]),
    ],
)
def test_what_a_filter_leaves_is_counted_and_so_are_images_without_a_date(searcher, chosen, searched, undated):
    line, *others = searcher.describe(chosen)
    assert searched in line
    assert [other.removesuffix(" that is known.") for other in others] == undated


def test_nothing_to_search_in_is_an_error_that_says_why(searcher, tmp_path):
    assert searcher.count() == 3
    assert searcher.count(Filter("trip")) == 2
    with pytest.raises(QueryError, match="no images in the folder more. .* has 1 image with a date, .*folders: trip"):
        searcher.count(Filter("more"))
    with pytest.raises(QueryError, match="There is no image in .*photos. Put images into it"):
        searcher.count(kind="short")
    of_embeddings = Searcher(searcher.encoder, searcher.table)
    assert of_embeddings.source == str(tmp_path / "table")
    with pytest.raises(QueryError, match="holds no embeddings of kind short: search for another --kind"):
        of_embeddings.count(kind="short")


@pytest.mark.parametrize(("score", "is_weak"), [(0.6, False), (0.61, True)])
def test_a_result_below_the_threshold_is_weak_for_a_text(searcher, score, is_weak):
    write_measurements(searcher.table, "image", Measurements(score, 0.99, 3))
    embedding = torch.tensor([0.0, 0.6, 0.8])
    query = Query(embedding, sentences=["a", "b"], sentence_embeds=torch.eye(3)[:2], is_text=True)
    first, second = searcher.search(query, k=2)
    assert [first.key, second.key] == ["c.jpg", "trip/b.jpg"]
    assert [first.is_below_threshold, second.is_below_threshold] == [False, is_weak]
    assert second.sentence_similarities == [0, 1]
    assert not searcher.search(query._replace(is_text=False), k=2)[1].is_below_threshold
    assert [result.key for result in searcher.search(query, k=3, chosen=Filter("trip"))] == [
        "trip/b.jpg",
        "trip/a.jpg",
    ]


@pytest.mark.parametrize("all_copies", [True, False])
def test_copies_are_one_result_unless_they_are_asked_for(searcher, all_copies):
    searcher.table.append([{"key": "copy.jpg", "embedding": torch.tensor([0.0, 0.0, 1.0])}])
    write_measurements(searcher.table, "image", Measurements(0.1, 0.99, 4))
    found = searcher.search(Query(torch.tensor([0.0, 0.6, 0.8])), k=2, all_copies=all_copies)
    keys = [[result.key, *[copy.key for copy in result.copies]] for result in found]
    assert keys == ([["c.jpg"], ["copy.jpg"]] if all_copies else [["c.jpg", "copy.jpg"], ["trip/b.jpg"]])
