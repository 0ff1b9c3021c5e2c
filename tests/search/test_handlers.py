"""What the page shows: everything that is filled in is escaped, and what is said about a collection is so."""

import concurrent.futures
import json
import os
import re
import shutil
import unicodedata
from datetime import datetime

import pytest
import torch
from markupsafe import escape
from PIL import Image

from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.search.arguments import ALL_IMAGES, Filter
from modeling_lotlip.search.handlers import render
from modeling_lotlip.search.query import Query, QueryError
from modeling_lotlip.search.searcher import Result, Searcher
from tests.helpers import photographs


HOSTILE = "<em class='x'>\"'<em>"


def show(query: Query, results: list[Result], image: str | None = None, **values) -> str:
    """Results as HTML, of 30 images that are shown as they are given."""
    defaults = {"chosen": ALL_IMAGES, "has_more": False, "is_first": True}
    values = defaults | {"num_images": "30 images", "left_out": ""} | values
    return render("results", query=query, results=results, thumbnail=lambda key: image, time=0, **values)


def list_cards(page: str) -> list[str]:
    """The names of the images that are shown."""
    return re.findall(r'class="card" data-name="([^"]*)"', page)


def fail(error: Exception) -> None:
    raise error


@pytest.fixture
def handlers(folder, open_folder):
    """Those of a folder that is indexed."""
    handlers = open_folder()
    handlers.searcher.update()
    return handlers


def make_pages() -> dict[str, str]:
    """Each part of the page, filled with HTML wherever that can come from outside."""
    query = Query(torch.ones(4), [HOSTILE] * 22, 11, [HOSTILE] * 2, [HOSTILE] * 11, torch.ones(11, 4))
    found = [Result(f"{HOSTILE}/{HOSTILE}", 0, 0.5, False, [0.95] * 11, [Result(HOSTILE, 0, 0.4)])]
    several = {"names": [HOSTILE, HOSTILE], "thumbnail": lambda name: HOSTILE}
    left_out = {"notes": [HOSTILE] * 3, "unreadable": [HOSTILE, HOSTILE]}
    return {
        "results": show(query, found, HOSTILE, left_out=HOSTILE),
        "copies": render("copies", num_more=3, num_gone=2, **several),
        "start": render("start", num_images=HOSTILE, hint=HOSTILE, **several),
        "message": render("message", text=HOSTILE),
        "status": render("status", alert=HOSTILE, line=HOSTILE, **left_out),
        "progress": render("progress", line=HOSTILE, fraction=0.25),
    }


@pytest.mark.parametrize("part", make_pages())
def test_everything_is_escaped_once(part):
    page = make_pages()[part]
    assert escape(HOSTILE) in page
    assert "<em" not in page
    assert "&amp;lt;" not in page
    assert "&amp;#" not in page


def test_each_sentence_has_its_similarity_and_nothing_says_that_it_is_true():
    query = Query(torch.ones(4), sentences=["a boat", "a house"], sentence_embeds=torch.ones(2, 4))
    page = show(query, [Result("1.png", 0, 0.5, sentence_similarities=[0.3125, -0.04])])
    shown = re.findall(r'<span class="(?:text|value)">([^<]*)</span>', page)
    assert shown == ["a boat", "0.312", "a house", "-0.040"]
    assert "It does not say whether the sentence is true of the image." in page


def test_an_image_alone_has_no_sentences():
    assert "sentence" not in show(Query(torch.ones(4)), [Result("1.png", 0, 0.5)])


def test_words_that_are_not_read_are_struck_out():
    query = Query(torch.ones(4), list("abcdefghi"), 6, ["лодка", "i"])
    page = show(query, [])
    assert "The model reads only the first 6 of 9 words, and ranks the images by these." in page
    assert "The model does not know: лодка, i." in page
    assert "… b c d e f <s>g h i</s>" in page


def test_nothing_is_said_of_words_that_are_read_and_known():
    page = show(Query(torch.ones(4), list("abcdefghi"), 9), [])
    assert "struck out" not in page
    assert "know" not in page


COPIES = [Result("2.png", 0, 0.49), Result("more/3.png", 0, 0.48)]
STRONG = Result("1.png", 0, 0.5, copies=COPIES)
WEAK = Result("4.png", 0, 0.1, is_below_threshold=True)
TEXT_QUERY = Query(torch.ones(4), is_text=True)


def test_weak_results_are_folded_and_copies_counted():
    page = show(TEXT_QUERY, [STRONG, WEAK], chosen=Filter(folder="more"), has_more=True)
    assert "The 2 most similar of 30 images in the folder more." in page
    assert "No good match" not in page
    strong_part, weak_part = page.split('<details class="weak">')
    assert list_cards(strong_part) == ["1.png"]
    assert "+ 2 nearly the same" in strong_part
    assert list_cards(weak_part) == ["4.png"]
    assert "nearly the same" not in weak_part
    assert "show-more" in weak_part


def test_images_without_a_date_are_counted_under_a_filter_of_days(handlers):
    num_images = len(handlers.searcher.table)
    assert num_images > 1
    with pytest.raises(QueryError, match="There are no images taken from 2024-05-01"):
        handlers.search("a red boat", None, "", "2024-05-01", "")
    key = handlers.searcher.search(handlers.searcher.embed("a boat"), 1)[0].key
    handlers.searcher.table.table.update(where=f"key = '{key}'", values={"taken": datetime(2024, 5, 2)})
    page, _ = handlers.search("a red boat", None, "", "2024-05-01", "")
    assert "The 1 most similar of 1 image taken from 2024-05-01." in page
    assert f"Left out, {num_images - 1} images without a date that is known." in page


def test_weak_results_are_open_where_further_ones_were_asked_for():
    assert '<details class="weak" open>' in show(TEXT_QUERY, [STRONG, WEAK], is_first=False)


def test_weak_results_alone_are_no_good_match():
    page = show(TEXT_QUERY, [WEAK])
    assert "No good match" in page
    assert "show-more" not in page


def test_there_is_no_fold_without_weak_results():
    assert '<details class="weak"' not in show(TEXT_QUERY, [STRONG])


def test_copies_that_are_not_shown_are_counted():
    page = render("copies", names=["2.png"], num_more=1200, num_gone=0, thumbnail=lambda name: None)
    assert "and 1,200 more" in page
    assert "not in the collection" not in page


def test_an_empty_folder_says_what_to_put_into_it(open_folder):
    handlers = open_folder()
    with pytest.raises(QueryError, match="There is no image in .*photos. Put images into it"):
        handlers.search("a boat", None, "", "", "")
    handlers.updater.start()
    concurrent.futures.wait([handlers.updater.last])
    assert "0 images in" in handlers.status()


def test_a_folder_is_not_called_empty_before_it_was_looked_through(open_folder):
    handlers = open_folder()
    assert "Looking ..." in handlers.status()


def test_progress_is_shown_and_what_is_indexed_can_be_searched_meanwhile(folder, open_folder, monkeypatch):
    monkeypatch.setattr("modeling_lotlip.table.embed.WRITE_SIZE", 3)
    handlers = open_folder()
    updater = handlers.updater
    report = updater.report
    seen = []

    def note(done: int, total: int) -> None:
        report(done, total)
        seen.append((len(handlers.searcher.table), handlers.status()))

    monkeypatch.setattr(updater, "report", note)
    (folder / "<b>.png").write_bytes(b"no image")
    updater.start()
    updater.last.result()
    counts = [count for count, _ in seen]
    assert counts == sorted(counts)
    assert len(set(counts)) >= 3
    assert "Indexing: 6 of 11 files (" in seen[2][1]
    assert 'aria-valuenow="55"' in seen[2][1]
    status = handlers.status()
    assert "10 images in" in status
    assert "Updated: 10 new, 1 that cannot be read." in status
    assert "1 file that cannot be read" in status
    assert "&lt;b&gt;.png" in status


@pytest.mark.parametrize("num_done, num_total, percent", [(0, 0, 0), (0, 1, 0), (1, 1, 100), (1, 4, 25)])
def test_the_bar_shows_the_fraction_that_is_done(open_folder, num_done, num_total, percent):
    handlers = open_folder()
    handlers.updater.report(num_done, num_total)
    assert f'aria-valuenow="{percent}"' in handlers.show_progress()


@pytest.mark.parametrize(
    "error, message", [(MemoryError(), "MemoryError"), (OSError("the disk is gone"), "the disk is gone")]
)
def test_an_update_that_fails_is_said_until_one_succeeds(error, message, handlers, folder, monkeypatch):
    make_scene(5, 31).draw().save(folder / "newer.png")
    with monkeypatch.context() as broken:
        broken.setattr("modeling_lotlip.search.searcher.embed_rows", lambda *_, **__: fail(error))
        handlers.updater.start()
        assert handlers.updater.last.exception() is error
    status = handlers.status()
    assert message in status
    assert "10 images indexed before can be searched" in status
    handlers.updater.start()
    handlers.updater.last.result()
    status = handlers.status()
    assert "Updated: 1 new." in status
    assert message not in status
    assert "11 images in" in status


class EndsWhileLookedAt(concurrent.futures.Future):
    """An update that ends just after it was first asked whether it has."""

    def done(self) -> bool:
        was_done = super().done()
        if not was_done:
            self.set_result(None)
        return was_done


def test_an_update_that_ends_while_it_is_looked_at_is_not_shown_as_running_for_ever(handlers):
    handlers.updater.last = EndsWhileLookedAt()
    status, is_running = handlers.follow()
    assert is_running or "10 images in" in status


@pytest.mark.parametrize(("k", "num_shown"), [(3, 3), (5, 5), (9, 6)])
def test_the_first_images_are_shown_also_where_they_are_read_in_parts(open_folder, monkeypatch, k, num_shown):
    monkeypatch.setattr("modeling_lotlip.table.storage.NUM_AT_ONCE", 2)
    handlers = open_folder(k)
    table = handlers.searcher.table
    table.append([{"key": f"{index}.png", "embedding": torch.ones(table.dim)} for index in range(6)])
    _, number = handlers.start()
    assert number == num_shown


def test_an_update_of_another_program_is_said(handlers):
    with handlers.searcher.table.writing():
        handlers.updater.start()
        assert handlers.updater.last.exception() is not None
    assert "is written by process" in handlers.status()


def test_search_by_image(handlers, folder):
    page, asked = handlers.search("", str(folder / "more" / "3.jpg"), "", "", "")
    assert asked.query.sentences == []
    assert list_cards(page)[0] == "more/3.jpg"
    assert "1.000" in page


def test_an_uploaded_image_has_a_number_of_pixels(handlers, tmp_path):
    """One of 6 kB took seconds, in which no other visitor was answered."""
    Image.new("1", (7100, 7100)).save(tmp_path / "a.png")
    with pytest.raises(QueryError, match="7100 x 7100 pixels, the max is 50,000,000: make it smaller"):
        handlers.search("", str(tmp_path / "a.png"), "", "", "")


def test_a_photograph_may_have_more_pixels(handlers, tmp_path):
    Image.new("L", (7100, 7100)).save(tmp_path / "a.jpg")
    page, _ = handlers.search("", str(tmp_path / "a.jpg"), "", "", "")
    assert len(list_cards(page)) == 4


def test_images_that_are_like_one_of_the_collection(handlers):
    page, _ = handlers.similar("more/3.jpg")
    assert list_cards(page)[0] == "more/3.jpg"
    assert "1.000" in page


def test_search_by_text(handlers):
    page, asked = handlers.search("A boat. It is 3.5 m long.", None, "", "", "")
    assert re.search(r"most similar of \d+ images\.", page), "no space before the full stop"
    assert asked.query.sentences == ["A boat", "It is 3.5 m long"]


def test_search_in_a_folder(handlers):
    page, _ = handlers.search("a boat", None, "more", "", "")
    assert list_cards(page) == ["more/3.jpg"]
    assert "show-more" not in page
    assert "The 1 most similar of 1 image in the folder more." in page


@pytest.mark.parametrize("stored, asked", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_a_folder_is_found_however_its_accents_are_written(stored, asked, folder, open_folder):
    """A Mac stores an accented letter as two characters, and a keyboard writes one."""
    name = unicodedata.normalize(stored, "Café d'été")
    (folder / name).mkdir()
    make_scene(5, 12).draw().save(folder / name / "a.png")
    handlers = open_folder()
    handlers.searcher.update()
    page, _ = handlers.search("a boat", None, unicodedata.normalize(asked, "Café d'été"), "", "")
    assert len(list_cards(page)) == 1


def test_a_folder_that_is_not_there_is_named(handlers):
    with pytest.raises(ValueError, match="no images in the folder less. .* and the folders: more."):
        handlers.search("a boat", None, "less", "", "")


def test_sentences_beyond_sixty_are_counted(handlers):
    page, _ = handlers.search("<script>a</script>. " + "the ground is sand. " * 100, None, "", "", "")
    num_cards = len(list_cards(page))
    assert "<script>" not in page
    assert page.count('aria-pressed="false"') == num_cards * 60
    assert page.count("93 more sentences, the first 52 of them") == num_cards
    assert "of 401 words" in page


def test_more_results_without_a_new_embedding(handlers, monkeypatch):
    page, asked = handlers.search("a boat", None, "", "", "")
    monkeypatch.setattr(Searcher, "embed", None)
    seen = [list_cards(page)]
    while "show-more" in page:
        page, asked = handlers.more(asked)
        seen.append(list_cards(page))
    expected = [result.key for result in handlers.searcher.search(asked.query, 50)]
    assert [len(keys) for keys in seen] == [*range(4, len(expected), 4), len(expected)]
    assert all(set(keys) <= set(seen[-1]) for keys in seen)
    assert set(seen[-1]) == set(expected)


@pytest.fixture
def copied(folder, open_folder):
    """Handlers of a folder in which an image is there twice, and the key of the less similar one."""
    shutil.copy(folder / "1.png", folder / "copy.png")
    handlers = open_folder(k=50)
    handlers.searcher.update()
    page, _ = handlers.search("a boat", None, "", "", "")
    keys = json.loads(re.search(r"data-copies='([^']*)'", page)[1])
    return handlers, keys[0]


def test_copies_are_shown_when_they_are_asked_for(copied):
    handlers, key = copied
    assert key in ("1.png", "copy.png")
    page = handlers.copies({"names": [key]})["html"]
    assert f'data-name="{key}"' in page
    assert "not in the collection" not in page


def test_copies_that_are_gone_are_counted_and_change_nothing_for_the_others(copied):
    handlers, key = copied
    page = handlers.copies({"names": ["../secret.png", key, "gone.png"]})["html"]
    assert re.findall('data-name="([^"]*)"', page) == [key]
    assert "2 not in the collection any more" in page


@pytest.mark.parametrize("names", [[3], ["1.png", None], [["1.png"]]])
def test_copies_of_a_name_that_is_no_text_are_refused(names, handlers):
    with pytest.raises(QueryError, match="a name that is no text"):
        handlers.copies({"names": names})


def test_a_heat_map_is_a_jpeg_in_the_page(handlers):
    answer = handlers.heat_map({"name": "more/3.jpg", "sentence": "a red boat"})
    assert answer["source"].startswith("data:image/jpeg")


def test_a_heat_map_of_an_image_that_is_gone(handlers, folder):
    (folder / "2.png").unlink()
    with pytest.raises(QueryError, match="cannot be read any more"):
        handlers.heat_map({"name": "2.png", "sentence": "a red boat"})


def test_images_of_another_name_are_not_shown(handlers):
    with pytest.raises(QueryError, match="not in the collection"):
        handlers.similar("../secret.png")
    with pytest.raises(QueryError, match="not in the collection"):
        handlers.copies({"names": ["../secret.png"]})


def test_questions_that_no_page_asks_are_refused(handlers):
    with pytest.raises(QueryError, match="has no name"):
        handlers.similar(3)
    with pytest.raises(QueryError, match="search first"):
        handlers.more(0)
    with pytest.raises(QueryError, match="nothing to search for"):
        handlers.search(None, None, None, "", "")


def test_half_of_a_character_is_refused(handlers):
    with pytest.raises(QueryError, match="holds half of a character"):
        handlers.search("a\ud800 boat", None, "", "", "")
    with pytest.raises(QueryError, match="holds half of a character"):
        handlers.search("a boat", None, "\ud800", "", "")
    with pytest.raises(QueryError, match="holds half of a character"):
        handlers.heat_map({"name": "1.png", "sentence": "\udfff"})


def test_a_thumbnail_is_made_once_and_again_of_a_changed_image(handlers, folder):
    first = handlers.thumbnail("1.png")
    assert first.startswith("data:image/png")
    assert handlers.thumbnail("1.png") is first
    make_scene(5, 41).draw().save(folder / "1.png")
    assert handlers.thumbnail("1.png") is None  # the stored embedding is of the image that was there
    handlers.searcher.update()
    assert handlers.thumbnail("1.png") not in (None, first)
    (folder / "1.png").unlink()
    assert handlers.thumbnail("1.png") is None


def test_images_that_exchange_names_exchange_thumbnails(handlers, folder):
    """Also if both have one time: that of the unpacked archive that they are from, say."""
    for name in ("0.png", "1.png"):
        os.utime(folder / name, (1, 1))
    handlers.searcher.update()
    first = [handlers.thumbnail(name) for name in ("0.png", "1.png")]
    os.rename(folder / "0.png", folder / "third.png")
    os.rename(folder / "1.png", folder / "0.png")
    os.rename(folder / "third.png", folder / "1.png")
    handlers.searcher.update()
    assert [handlers.thumbnail(name) for name in ("1.png", "0.png")] == first


def test_a_heat_map_is_drawn_of_a_photograph_of_any_size(handlers, folder, monkeypatch):
    """It is decoded at a fraction, as it was for its embedding."""
    photographs.make_picture(*photographs.HUGE).save(folder / "more" / "3.jpg")
    monkeypatch.setattr(handlers.searcher.table, "read_signatures", lambda where: [])
    photographs.shrink_limit(monkeypatch)
    answer = handlers.heat_map({"name": "more/3.jpg", "sentence": "a red boat"})
    assert answer["source"].startswith("data:image/jpeg")


def test_an_empty_index_is_not_searched_while_the_first_images_are_indexed(open_folder, monkeypatch):
    handlers = open_folder()
    assert len(handlers.searcher.table) == 0
    monkeypatch.setattr(handlers.updater, "last", concurrent.futures.Future())
    with pytest.raises(QueryError, match="The first images are still being indexed. Try again in a moment"):
        handlers.search("a red boat", None, None, "", "")


def test_an_update_ends_at_its_next_report_when_the_page_is_closed(handlers):
    handlers.updater.report(1, 2)
    handlers.updater.stop()
    with pytest.raises(RuntimeError, match="The update was stopped"):
        handlers.updater.report(2, 2)
