"""What the page shows: everything that is filled in is escaped, and what is said about a collection is so."""

import json
import re
import shutil

import pytest
import torch
from markupsafe import escape

from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.search.arguments import ALL_IMAGES, Filter
from modeling_lotlip.search.handlers import render
from modeling_lotlip.search.query import Query, QueryError
from modeling_lotlip.search.searcher import Result, Searcher


HOSTILE = "<em class='x'>\"'<em>"


def show(query: Query, results: list[Result], image: str | None = None, **values) -> str:
    """Results as HTML, of 30 images that are shown as they are given."""
    values = {"chosen": ALL_IMAGES, "has_more": False, "is_first": True, "num_images": "30 images"} | values
    return render("results", query=query, results=results, thumbnail=lambda key: image, time=0, **values)


def make_pages() -> dict[str, str]:
    """Each part of the page, filled with HTML wherever that can come from outside."""
    query = Query(torch.ones(4), [HOSTILE] * 22, 11, [HOSTILE] * 2, [HOSTILE] * 11, torch.ones(11, 4))
    found = [Result(f"{HOSTILE}/{HOSTILE}", 0, 0.5, False, [0.95] * 11, [Result(HOSTILE, 0, 0.4)])]
    several = {"names": [HOSTILE, HOSTILE], "thumbnail": lambda name: HOSTILE}
    left_out = {"notes": [HOSTILE] * 3, "unreadable": [HOSTILE, HOSTILE]}
    return {
        "results": show(query, found, HOSTILE),
        "copies": render("copies", num_more=3, **several),
        "start": render("start", num_images=HOSTILE, hint=HOSTILE, **several),
        "message": render("message", text=HOSTILE),
        "status": render("status", alert=HOSTILE, line=HOSTILE, **left_out),
        "progress": render("progress", line=HOSTILE, share=0.25),
    }


@pytest.mark.parametrize("part", make_pages())
def test_everything_is_escaped_once(part):
    page = make_pages()[part]
    assert escape(HOSTILE) in page and "<em" not in page and "&amp;lt;" not in page and "&amp;#" not in page


def test_each_sentence_has_its_similarity_and_nothing_says_that_it_is_true():
    query = Query(torch.ones(4), sentences=["a boat", "a house"], sentence_embeds=torch.ones(2, 4))
    page = show(query, [Result("1.png", 0, 0.5, sentence_similarities=[0.3125, -0.04])])
    assert re.findall(r'<span class="(?:text|value)">([^<]*)</span>', page) == ["a boat", "0.312", "a house", "-0.040"]
    assert "It does not say whether the sentence is true of the image." in page
    assert "sentence" not in show(Query(torch.ones(4)), [Result("1.png", 0, 0.5)])


def test_words_that_are_not_read_are_struck_out():
    query = Query(torch.ones(4), list("abcdefghi"), 6, ["лодка", "i"])
    page = show(query, [])
    assert "The model reads only the first 6 of 9 words, and ranks the images by these." in page
    assert "The model does not know: лодка, i." in page and "… b c d e f <s>g h i</s>" in page
    whole = show(query._replace(num_read=9, unknown_words=[]), [])
    assert "struck out" not in whole and "know" not in whole


def test_weak_results_are_folded_and_copies_counted():
    query = Query(torch.ones(4), is_text=True)
    copies = [Result("2.png", 0, 0.49), Result("more/3.png", 0, 0.48)]
    strong, weak = Result("1.png", 0, 0.5, copies=copies), Result("4.png", 0, 0.1, is_below_threshold=True)
    page = show(query, [strong, weak], chosen=Filter(folder="more"), has_more=True)
    assert "The 2 most similar of 30 images in the folder more." in page and "No good match" not in page
    strong_part, weak_part = page.split('<details class="weak">')
    assert 'data-name="1.png"' in strong_part and "+ 2 nearly the same" in strong_part
    assert 'data-name="4.png"' in weak_part and "nearly the same" not in weak_part and "show-more" in weak_part
    assert '<details class="weak" open>' in show(query, [strong, weak], is_first=False)
    page = show(query, [weak])
    assert "No good match" in page and "show-more" not in page
    assert '<details class="weak"' not in show(query, [strong])
    assert "and 1,200 more" in render("copies", names=["2.png"], num_more=1200, thumbnail=lambda name: None)


def test_progress_is_shown_and_what_is_indexed_can_be_searched_meanwhile(folder, open_folder, monkeypatch):
    monkeypatch.setattr("modeling_lotlip.table.embed.WRITE_SIZE", 3)
    handlers = open_folder()
    updater, table, seen = handlers.updater, handlers.searcher.table, []
    with pytest.raises(QueryError, match="There is no image in .*photos. Put images into it"):
        handlers.search("a boat", None, "", "", "")
    assert "0 images in" in handlers.status()
    report = updater.report

    def note(done: int, total: int) -> None:
        report(done, total)
        seen.append((len(table), handlers.status()))

    monkeypatch.setattr(updater, "report", note)
    (folder / "<b>.png").write_bytes(b"no image")
    updater.start()
    updater.last.result()
    assert [number for number, _ in seen] == sorted(number for number, _ in seen)
    assert len({number for number, _ in seen}) >= 3
    assert "Indexing: 6 of 11 images (" in seen[2][1] and 'aria-valuenow="55"' in seen[2][1]
    status = handlers.status()
    assert "10 images in" in status and "Updated: 11 new." in status and "1 file that cannot be read" in status
    assert "&lt;b&gt;.png" in status

    # an update that fails is said, and so is one of another program
    make_scene(5, 31).draw().save(folder / "newer.png")
    for error, message in ((MemoryError(), "MemoryError"), (OSError("the disk is gone"), "the disk is gone")):
        with monkeypatch.context() as broken:
            broken.setattr("modeling_lotlip.search.searcher.embed_rows", lambda *_, error=error, **__: fail(error))
            updater.start()
            assert updater.last.exception() is error
        assert message in handlers.status() and "10 images indexed before can be searched" in handlers.status()
    with table.writing():
        updater.start()
        assert updater.last.exception() is not None
    assert "is written by process" in handlers.status()
    updater.start()
    updater.last.result()
    assert "Updated: 1 new." in handlers.status() and len(table) == 11


def fail(error: Exception) -> None:
    raise error


def test_search_by_text_by_image_and_by_filter(folder, open_folder):
    handlers = open_folder()
    handlers.searcher.update()
    page, asked = handlers.search("", str(folder / "more" / "3.jpg"), "", "", "")
    assert asked.query.sentences == [] and re.search(r'data-name="([^"]*)"', page)[1] == "more/3.jpg"
    assert "1.000" in page and "1.000" in handlers.similar("more/3.jpg")[0]
    _, asked = handlers.search("A boat. It is 3.5 m long.", None, "", "", "")
    assert asked.query.sentences == ["A boat", "It is 3.5 m long"]
    page, _ = handlers.search("a boat", None, "more", "", "")
    assert re.findall(r'class="card" data-name="([^"]*)"', page) == ["more/3.jpg"] and "show-more" not in page
    assert "The 1 most similar of 1 image in the folder more." in page
    told = "no images in the folder less. The collection has 0 images with a date, and the folders: more."
    with pytest.raises(ValueError, match=told):
        handlers.search("a boat", None, "less", "", "")
    page, _ = handlers.search("<script>a</script>. " + "the ground is sand. " * 100, None, "", "", "")
    num_cards = page.count('class="card"')
    assert "<script>" not in page and page.count('aria-pressed="false"') == num_cards * 60
    assert page.count("93 more sentences, the first 52 of them") == num_cards and "of 401 words" in page


def test_more_results_without_a_new_embedding(folder, open_folder, monkeypatch):
    shutil.copy(folder / "1.png", folder / "copy.png")
    handlers = open_folder(k=4)
    handlers.searcher.update()
    page, asked = handlers.search("a boat", None, "", "", "")
    monkeypatch.setattr(Searcher, "embed", None)
    seen = [re.findall(r'class="card" data-name="([^"]*)"', page)]
    while "show-more" in page:
        page, asked = handlers.more(asked)
        seen.append(re.findall(r'class="card" data-name="([^"]*)"', page))
    expected = [result.key for result in handlers.searcher.search(asked.query, 50)]
    assert [len(keys) for keys in seen] == [*range(4, len(expected), 4), len(expected)]
    assert all(set(keys) <= set(seen[-1]) for keys in seen) and set(seen[-1]) == set(expected)
    copies = json.loads(re.search(r"data-copies='([^']*)'", page)[1])
    assert len({"1.png", "copy.png"} & set(copies)) == 1
    assert f'data-name="{copies[0]}"' in handlers.copies({"names": [*copies, "../secret.png"]})["html"]


def test_heat_map(folder, open_folder):
    handlers = open_folder()
    handlers.searcher.update()
    assert handlers.heat_map({"name": "more/3.jpg", "sentence": "a red boat"})["source"].startswith("data:image/jpeg")
    for ask, about in ((handlers.similar, "../secret.png"), (handlers.copies, {"names": ["../secret.png"]})):
        with pytest.raises(QueryError, match="not in the collection"):
            ask(about)
    (folder / "2.png").unlink()
    with pytest.raises(QueryError, match="cannot be read any more"):
        handlers.heat_map({"name": "2.png", "sentence": "a red boat"})


def test_images_of_the_page_are_made_once(folder, open_folder):
    handlers = open_folder()
    handlers.searcher.update()
    first = handlers.thumbnail("1.png")
    assert handlers.thumbnail("1.png") is first and first.startswith("data:image/png")
    make_scene(5, 41).draw().save(folder / "1.png")
    assert handlers.thumbnail("1.png") is None  # what is stored is of the image that was there
    handlers.searcher.update()
    assert handlers.thumbnail("1.png") not in (None, first)
    (folder / "1.png").unlink()
    assert handlers.thumbnail("1.png") is None
