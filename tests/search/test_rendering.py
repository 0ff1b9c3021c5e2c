"""The HTML of the page: everything that is filled in is escaped."""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import torch

from modeling_lotlip.search.filters import EVERYTHING, Filter
from modeling_lotlip.search.query import Copy, Query, Result, Sentence
from modeling_lotlip.search.rendering import format_more, format_results, format_status, render
from modeling_lotlip.search.searcher import Answer, Status
from modeling_lotlip.search.update import Changes
from modeling_lotlip.search.zero_shot import Label


HOSTILE = "<em class='x'>\"&amp;'<em>"


class Reader(HTMLParser):
    """The tags, the attributes and the text of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.values, self.text, self.open = Counter(), [], "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.values += [value for _, value in attrs]
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read_page(page: str) -> Reader:
    reader = Reader(page)
    assert reader.open == []
    return reader


class Table:
    """What is looked at in a table of one image, which counts 30."""

    def __init__(self, *unreadable: str):
        self.unreadable = dict.fromkeys(unreadable, "wrong")

    def __len__(self) -> int:
        return 1

    def count(self, where: str | None = None) -> int:
        return 30

    def describe_search(self) -> str:
        return ""


def make_searcher(**fields) -> SimpleNamespace:
    """What is looked at in a searcher."""
    defaults = {
        "status": Status(False, 0, 0, None),
        "table": Table(),
        "changes": Changes(0, 0, 0),
        "thumbnail": lambda name: None,
        "pictures": SimpleNamespace(place="photos", others=Counter(), closed_folders=set(), empty_folders=set()),
    }
    return SimpleNamespace(**(defaults | fields))


def make_answer(query: Query, results: list[Result], those: Filter = EVERYTHING, has_more: bool = False) -> Answer:
    return Answer(query, those, results, "key", has_more)


def make_pages() -> dict[str, tuple[str, int]]:
    """Each part of the page, filled with HTML wherever that can come from outside, and how often it is shown."""
    sentences = [Sentence(HOSTILE, ""), Sentence(HOSTILE, HOSTILE), Sentence("", HOSTILE)]
    sentences += [Sentence(HOSTILE, "")] * 8
    query = Query(torch.ones(4), sentences, torch.ones(11, 4), [HOSTILE, HOSTILE])
    found = [Result(f"{HOSTILE}/{HOSTILE}", 0.5, [0.95] * len(sentences), False, [Copy(HOSTILE, 0.4)])]
    unreadable = Table(HOSTILE, "a" + HOSTILE)
    left_out = {"others": Counter({HOSTILE: 1}), "closed_folders": {HOSTILE}, "empty_folders": {HOSTILE}}
    closed = SimpleNamespace(place=HOSTILE, **left_out)
    answer, searcher = make_answer(query, found), make_searcher(thumbnail=lambda name: HOSTILE)
    options = {"names": [HOSTILE, HOSTILE], "thumbnail": lambda name: HOSTILE}
    return {
        "results": (format_results(answer, searcher), 2 + 12 + 2 + 12),
        "no image": (format_results(answer, make_searcher()), 2 + 12 + 2 + 12),
        "copies": (render("copies", num_more=3, **options), 2),
        "start": (render("start", num_images=HOSTILE, hint=HOSTILE, **options), 2 + 2),
        "more": (format_more(answer, searcher)["cards"], 2 + 12),
        "message": (render("message", text=HOSTILE), 1),
        "labels": (render("labels", found=[Label(HOSTILE, 0.5, 0.1)] * 2, add_up=True), 2),
        "status": (format_status(make_searcher(table=unreadable, pictures=closed)), 1 + 2 + 3),
        "problem": (format_status(make_searcher(status=Status(False, 0, 0, HOSTILE), pictures=closed)), 2 + 3),
    }


@pytest.mark.parametrize("part", make_pages())
def test_everything_is_escaped_once(part):
    page, times = make_pages()[part]
    reader = read_page(page)
    assert reader.tags["em"] == 0
    # what is read again is what was filled in: neither left as it is nor escaped twice
    assert reader.text.count(HOSTILE) == times and "&" not in reader.text.replace(HOSTILE, "")
    assert all("&" not in value.replace(HOSTILE, "") for value in reader.values if value)
    if part == "results":
        name = f"{HOSTILE}/{HOSTILE}"
        # of the card, the button, the image and the line under it
        assert reader.values.count(name) == 3 and reader.values.count(f"Show {name} large") == 1
        assert reader.values.count(HOSTILE) == 1  # the address of the image
        assert [json.loads(value) for value in reader.values if value and value.startswith("[")] == [[HOSTILE]]


def test_each_sentence_has_its_similarity_and_nothing_says_that_it_is_true():
    query = Query(torch.ones(4), [Sentence("a boat", ""), Sentence("a house", "")], torch.ones(2, 4))
    found = make_answer(query, [Result("1.png", 0.5, [0.3125, -0.04])])
    page = format_results(found, make_searcher())
    assert re.findall(r'<span class="(?:text|value)">([^<]*)</span>', page) == ["a boat", "0.312", "a house", "-0.040"]
    assert "It does not say whether the sentence is true of the image." in page
    assert "✓" not in page and 'class="track"' not in page
    of_image = make_answer(query._replace(sentences=[]), [Result("1.png", 0.5, [])])
    assert "sentence" not in format_results(of_image, make_searcher())


def test_words_that_the_model_does_not_know_are_named():
    query = Query(torch.ones(4), [Sentence("a boat", "")], torch.ones(1, 4), ["лодка", "i", "qzqz", "船"])
    assert "The model does not know: лодка, i, qzqz, 船." in format_results(make_answer(query, []), make_searcher())
    known = make_answer(query._replace(unknown_words=[]), [])
    assert "know" not in format_results(known, make_searcher())


def test_a_text_that_is_not_read_is_struck_out():
    sentences = [Sentence("a", ""), Sentence("b", ""), Sentence("c", "d"), Sentence("", "e f")]
    query = Query(torch.ones(4), sentences, torch.ones(4, 4))
    reader = read_page(format_results(make_answer(query, []), make_searcher()))
    text = " ".join(reader.text.split())
    assert "The model reads only the first 3 of 6 words, and ranks the images by these." in text
    assert "… b. c d. e f." in text and reader.tags["s"] == 2
    whole = format_results(make_answer(query._replace(sentences=sentences[:2]), []), make_searcher())
    assert "struck out" not in whole


def test_weak_results_are_folded_and_copies_counted():
    query = Query(torch.ones(4), [], torch.empty(0, 0), is_text=True)
    copies = [Copy("2.png", 0.49), Copy("more/3.png", 0.48)]
    strong, weak = Result("1.png", 0.5, [], False, copies), Result("4.png", 0.1, [], True)
    found = make_answer(query, [strong, weak], Filter(folder="more"), has_more=True)
    page = format_results(found, make_searcher())
    assert "The 2 most similar of 30 images in the folder more." in page and "Nothing here fits" not in page
    strong_part, weak_part = page.split('<details class="weak">')
    assert 'data-name="1.png"' in strong_part and "+ 2 nearly the same" in strong_part
    assert 'data-name="4.png"' in weak_part and "nearly the same" not in weak_part
    assert 'data-key="key"' in weak_part and "Show more" in weak_part

    page = format_results(make_answer(query, [weak]), make_searcher())
    assert "Nothing here fits" in page and "Show more" not in page
    page = format_results(make_answer(query, [strong]), make_searcher())
    assert '<details class="weak" hidden>' in page
    more = format_more(make_answer(query, [strong, weak], has_more=True), make_searcher())
    assert "1.png" in more["cards"] and "4.png" in more["weak_cards"] and more["has_more"]
    assert "and 1,200 more" in render("copies", names=["2.png"], num_more=1200, thumbnail=lambda name: None)


def test_probabilities_that_add_up_and_others():
    labels = [Label("a boat", 0.75, 0.3), Label("a house", 0.25, 0.1)]
    page = render("labels", found=labels, add_up=True)
    assert "add up to 100 %" in page and page.count('class="label strong"') == 1
    assert "75.0 %" in page and "width: 25.0%" in page and "similarity 0.300" in page
    assert "Each label has a probability of its own." in render("labels", found=labels, add_up=False)


def test_progress():
    searcher = make_searcher(status=Status(True, 3, 12, None))
    page = format_status(searcher)
    assert "Indexing: 3 of 12 images (1 image can be searched)" in page and 'aria-valuenow="25"' in page
    assert "width: 25.0%" in page
    assert "Looking ..." in format_status(make_searcher(status=Status(True, 0, 0, None)))
    done = format_status(make_searcher(changes=Changes(2, 0, 1)))
    assert "1 image in photos." in done and "Last look: 2 new, 1 deleted." in done


def test_the_status_says_that_the_search_is_made_fast():
    page = format_status(make_searcher(status=Status(True, 1, 1, None, is_speeding_up=True)))
    assert "Making the search in 1 image fast" in page and "Indexing:" not in page
