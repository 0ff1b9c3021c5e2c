"""Search in an index: exact and approximate, and what is noted of a picture."""

import subprocess
import sys
from datetime import date, datetime
from io import BytesIO

import pytest
import torch
from PIL import Image

from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.embedding.search import search
from modeling_lotlip.embedding.store import read_settings
from modeling_lotlip.search import index as index_module
from modeling_lotlip.search.filters import EVERYTHING, Filter
from modeling_lotlip.search.index import Effort, Index, describe_effort
from modeling_lotlip.search.pictures import describe_file


def unit(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


def fill(folder, embeds: torch.Tensor, start: int = 0, problem: str | None = None) -> Index:
    """An index on disk with pictures that are called by their numbers."""
    index = Index.make(folder, embeds.shape[1], {"weights": "w"})
    index.write([{"name": f"{start + row:05}", "embedding": embedding} for row, embedding in enumerate(embeds)])
    return index


def stored(index: Index, num: int) -> torch.Tensor:
    """The embeddings as they are stored, in the order of the names."""
    return torch.stack([index.embedding(f"{number:05}") for number in range(num)])


@pytest.mark.parametrize("k", [1, 7, 400, 1000])
def test_equals_exact_search_in_the_same_vectors(tmp_path, k):
    generator = torch.manual_seed(0)
    index, queries = fill(tmp_path, unit(generator, 400, 16)), unit(generator, 5, 16)
    vectors = stored(index, 400)
    similarities, positions = search(queries, [vectors], min(k, 400))
    for query, expected, places in zip(queries, similarities, positions):
        found = index.search(query, k)
        assert [int(name) for name in found.names] == places.tolist()
        torch.testing.assert_close(found.similarities, expected, rtol=0, atol=1e-6)
        assert torch.equal(found.embeds, vectors[places])


@pytest.mark.parametrize("num_equal", [5, 300])
def test_of_equals_the_first_names_come_first_however_many_there_are(tmp_path, num_equal):
    generator = torch.manual_seed(0)
    vector, others = unit(generator, 1, 16), unit(generator, 100, 16)
    names = [f"{number:05}" for number in torch.randperm(num_equal, generator=generator).tolist()]
    index = fill(tmp_path, others, start=10_000)
    index.write([{"name": name, "embedding": vector[0]} for name in names])
    for k in (1, 4, num_equal, num_equal + 2):
        assert index.search(vector[0], k).names[:num_equal] == sorted(names)[:k]


def test_what_cannot_be_read_is_not_found(tmp_path):
    embeds = unit(torch.manual_seed(0), 3, 8)
    index = fill(tmp_path, embeds)
    index.write([{"name": "it's broken", "problem": "cut off"}, {"name": "00001", "problem": "cut off too"}])
    assert index.unreadable == {"it's broken": "cut off", "00001": "cut off too"} and len(index) == 2
    assert "it's broken" not in index and "00001" not in index and "00002" in index
    assert sorted(index.search(embeds[1], 10).names) == ["00000", "00002"] and len(index.references) == 2
    index.write([{"name": "it's broken", "embedding": embeds[1]}])
    assert index.search(embeds[1], 1).names == ["it's broken"] and index.unreadable == {"00001": "cut off too"}
    index.delete(["it's broken", "nothing"])
    assert len(index) == 2 and "it's broken" not in index


def test_a_handle_sees_what_another_one_writes(tmp_path):
    embeds = unit(torch.manual_seed(0), 20, 8)
    reader = fill(tmp_path, embeds[:10])
    assert len(reader) == 10 and len(reader.references) == 10
    writer = Index.open(tmp_path)
    writer.write([{"name": "new", "embedding": embeds[15]}])
    writer.tidy()
    assert reader.search(embeds[15], 1).names == ["new"] and len(reader) == len(reader.references) == 11
    assert read_settings(tmp_path) == {"weights": "w"}


def test_a_sample_stands_for_a_large_collection(tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "NUM_REFERENCES", 40)
    index = fill(tmp_path, unit(torch.manual_seed(0), 300, 8))
    drawn = index.references
    places = torch.cdist(drawn, stored(index, 300)).min(dim=1)
    assert places.values.max() < 1e-3 and len(places.indices.unique()) == len(drawn) == 40
    assert places.indices.max() > 250 and Index.open(tmp_path).references.equal(drawn)


def clustered(generator: torch.Generator, num: int, dim: int) -> torch.Tensor:
    """Vectors around a few, which is what an index of cells is made for."""
    centres = torch.randn(num // 50, dim, generator=generator)
    noise = torch.randn(num, dim, generator=generator)
    return torch.nn.functional.normalize(centres[torch.arange(num) % len(centres)] + 0.5 * noise, dim=-1)


def test_many_pictures_are_searched_approximately_as_well_as_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "NUM_EXACT", 3000)
    generator = torch.manual_seed(0)
    embeds = clustered(generator, 4000, 32)
    index = fill(tmp_path, embeds[:2900])
    assert not index.is_due and index.effort is None and describe_effort(index) == ""
    index.write([{"name": f"{row:05}", "embedding": embeds[row]} for row in range(2900, 3000)])
    assert index.is_due
    index.speed_up()
    effort = index.effort
    assert not index.is_due and effort.recall >= 0.98 and effort.num_pictures == 3000
    assert f"{effort.recall:.1%} of the first 10" in describe_effort(index)
    vectors = stored(index, 3000)
    queries = torch.nn.functional.normalize(vectors[::30] + 0.05 * torch.randn(100, 32, generator=generator), dim=-1)
    exact = search(queries, [vectors], 10)[1]
    found = [{int(name) for name in index.search(query, 10).names} for query in queries]
    recall = sum(len(names & set(places.tolist())) for names, places in zip(found, exact)) / 1000
    assert recall > 0.95
    # similarities are the exact ones
    result = index.search(queries[0], 5)
    torch.testing.assert_close(result.similarities, result.embeds @ queries[0], rtol=0, atol=1e-6)

    # what is new is found at once, and after many new ones it is measured again
    index.write([{"name": f"{row:05}", "embedding": embeds[row]} for row in range(3000, 3200)])
    assert index.search(embeds[3100], 1).names == ["03100"] and not index.is_due
    index.tidy()
    assert index.search(embeds[3100], 1).names == ["03100"]
    index.write([{"name": f"{row:05}", "embedding": embeds[row]} for row in range(3200, 4000)])
    assert index.is_due
    index.speed_up()
    assert index.effort.num_pictures == 4000 and index.effort.recall >= 0.98 and not index.is_due


def test_a_picture_that_finds_itself_is_no_recall(tmp_path, monkeypatch):
    """The queries are from all parts of the table, and only other pictures count."""
    monkeypatch.setattr(index_module, "NUM_MEASURED", 10)
    index, asked = fill(tmp_path, unit(torch.manual_seed(0), 100, 16)), []
    nearest_ids = Index.nearest_ids

    def find_itself(self, query, k, effort):
        asked.append(query)
        return nearest_ids(self, query, 1, effort).expand(k)

    with monkeypatch.context() as context:
        context.setattr(Index, "nearest_ids", find_itself)
        assert index.measure().recall == 0
    places = torch.cdist(torch.stack(asked[:10]), stored(index, 100)).argmin(dim=1)
    assert places.tolist() == list(range(0, 100, 10)) and len(asked) == 10 * len(index_module.EFFORTS)
    assert index.measure().recall == 1


def test_a_filter_is_exact_however_the_search_is(tmp_path, monkeypatch):
    """Above `NUM_EXACT` too, where the few pictures of a folder lie in cells that are not looked into."""
    monkeypatch.setattr(index_module, "NUM_EXACT", 1000)
    monkeypatch.setattr(index_module, "EFFORTS", ((1, 1),))
    generator = torch.manual_seed(0)
    embeds, query = clustered(generator, 2000, 32), unit(generator, 1, 32)[0]
    index = Index.make(tmp_path, 32, {})
    names = [f"{'some' if number % 10 == 0 else 'others'}/{number:05}" for number in range(2000)]
    index.write([{"name": name, "embedding": embedding} for name, embedding in zip(names, embeds)])
    index.speed_up()
    assert index.effort is not None
    some = Filter(folder="some")
    assert index.count(some) == 200
    found = index.search(query, 50, some)
    vectors = torch.stack([index.embedding(name) for name in names[::10]])
    expected = (vectors @ query).sort(descending=True)
    assert found.names == [names[10 * place] for place in expected.indices[:50].tolist()]
    # of so many the approximate search finds enough, and of those that are let through only
    many = index.search(query, 10, Filter(folder="others"))
    assert len(many.names) == 10 and all(name.startswith("others/") for name in many.names)


def test_folders_and_days_of_a_filter(tmp_path):
    days = {
        "it's 100%_/a.png": datetime(2024, 5, 1),
        "it's 100%_/more/b.png": datetime(2024, 5, 31, 23, 59, 59),
        "it's 100%_ too/c.png": datetime(2024, 6, 1),
        "d.png": None,
    }
    embeds = unit(torch.manual_seed(0), len(days), 8)
    index = Index.make(tmp_path, 8, {})
    index.write([{"name": name, "embedding": row, "taken": day} for (name, day), row in zip(days.items(), embeds)])
    index.write([{"name": "it's 100%_/broken.png", "problem": "cut off"}])
    a, b, c, d = days

    def names(*those) -> set[str]:
        assert index.count(Filter(*those)) == len(index.search(embeds[0], 10, Filter(*those)).names)
        return set(index.search(embeds[0], 10, Filter(*those)).names)

    assert names() == {a, b, c, d} and names("it's 100%_") == {a, b} and names("it's 100%_/more/") == {b}
    assert names("it's") == names("a.png") == set()
    assert names(None, date(2024, 5, 1), date(2024, 5, 31)) == {a, b} and names(None, date(2024, 5, 2)) == {b, c}
    assert names(None, None, date(2024, 5, 30)) == {a} and names("it's 100%_", date(2024, 5, 2)) == {b}
    assert index.folders == ["it's 100%_", "it's 100%_ too", "it's 100%_/more"]
    index.write([{"name": "new/e.png", "embedding": embeds[0]}])
    assert "new" in index.folders


@pytest.mark.parametrize("written", [("", "", ""), (None, None, None), (" ", " ", ""), (".", "", ""), ("./", "", "")])
def test_nothing_written_is_no_filter(written):
    assert Filter.read(*written) == EVERYTHING


@pytest.mark.parametrize(
    "days, message",
    [
        (("31.5.2024", None), "--taken_from 31.5.2024 is no date: write year, month and day, as in 2024-05-31."),
        ((None, "2024-02-30"), "--taken_to 2024-02-30 is no date"),
        (("2024-06-01", "2024-05-31"), "--taken_from 2024-06-01 is after --taken_to 2024-05-31: exchange them."),
    ],
)
def test_days_that_are_none(days, message):
    with pytest.raises(ValueError, match=message):
        Filter.read(None, *days)


def test_levels_by_hand(tmp_path):
    """Also from parts of a table, and whatever a third of the texts fits."""
    generator = torch.manual_seed(0)
    embeds, texts = unit(generator, 2500, 16), unit(generator, 60, 16)
    index = fill(tmp_path, embeds)
    assert index.levels is None and index.are_levels_due
    vectors = stored(index, 2500)
    levels = index.measure_levels(texts)
    assert levels == index.levels and levels.num_pictures == 2500 and not index.are_levels_due
    tops = (texts @ vectors.t()).amax(dim=1)
    sixth, median = torch.quantile(tops, 1 / 6), tops.median()
    middle = tops.sort().values[29:31].mean()
    assert levels.line == pytest.approx((middle + index_module.LINE * (middle - sixth)).item(), abs=1e-5)
    assert abs(middle - median) < 0.05
    similarities = vectors[::5] @ vectors.t()
    others = similarities.topk(2, dim=1).values[:, 1]
    distance = torch.quantile(1 - others, index_module.COPY_QUANTILE)
    assert levels.copy == pytest.approx((1 - index_module.COPY_DISTANCE * distance).item(), abs=1e-5)

    fitting = torch.cat([texts[:40], vectors[:20]])
    assert abs(index.measure_levels(fitting).line - levels.line) < 0.4 * (1 - levels.line)
    index.write([{"name": f"more {row}", "embedding": embedding} for row, embedding in enumerate(embeds[:300])])
    assert index.are_levels_due
    index.delete([f"{row:05}" for row in range(100)])
    assert not index.are_levels_due


@pytest.mark.parametrize("num", [1, 2])
def test_levels_of_few_pictures(tmp_path, num):
    index = fill(tmp_path / "some", torch.ones(num, 4) / 2)
    levels = index.measure_levels(torch.nn.functional.normalize(torch.ones(3, 4), dim=-1))
    assert levels == (pytest.approx(1, abs=1e-3), pytest.approx(1, abs=1e-3), num)
    assert not Index.make(tmp_path / "none", 4, {}).are_levels_due


def test_an_effort_that_is_not_enough_is_raised(tmp_path, monkeypatch):
    """The least of two does if it finds enough; else the larger one is noted, with what it finds."""
    monkeypatch.setattr(index_module, "NUM_EXACT", 1000)
    monkeypatch.setattr(index_module, "EFFORTS", ((1, 1), (100, 40)))
    index = fill(tmp_path, unit(torch.manual_seed(0), 2000, 64))
    index.build()
    assert index.effort == Effort(100, 40)  # until it is measured
    low = index.measure()
    assert low[:2] == (100, 40) and low.recall >= 0.98
    monkeypatch.setattr(index_module, "EFFORTS", ((1, 1),))
    assert index.measure().recall < 0.98 and f"{index.effort.recall:.1%}" in describe_effort(index)


def test_a_full_disk_is_one_line_and_leaves_the_index_as_it_was(tmp_path):
    """A limit on the size of files stands for it: LanceDB gets the same kind of error from the system."""
    fill(tmp_path, unit(torch.manual_seed(0), 20, 64))
    code = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from modeling_lotlip.search.index import Index\n"
        "index = Index.open(Path(sys.argv[1]))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "rows = [{'name': f'more {row}', 'embedding': torch.ones(64)} for row in range(5000)]\n"
        "try:\n"
        "    index.write(rows)\n"
        "except OSError as error:\n"
        "    print(error, len(index), index.search(torch.ones(64), 3).names)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.count("\n") == 1 and "cannot be written, and is as it was" in done.stdout, done.stderr
    index = Index.open(tmp_path)
    assert len(index) == 20 and index.write([{"name": "more", "embedding": torch.ones(64)}]) is None
    assert len(index) == 21


def test_programs_that_make_an_index_at_once_share_it(tmp_path):
    code = (
        "import sys; from pathlib import Path; from modeling_lotlip.search.index import Index\n"
        "sys.stdin.readline(); print(len(Index.make(Path(sys.argv[1]) / 'new', 8, {'weights': 'w'})))"
    )
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for program in programs:
        program.stdin.write("\n")
        program.stdin.flush()
    assert [program.communicate()[0] for program in programs] == ["0\n", "0\n"]


def test_what_is_noted_of_a_file():
    buffer, exif = BytesIO(), Image.Exif()
    exif[0x0112], exif[0x0132] = 6, "2020:01:02 03:04:05"
    image = make_scene(5, 0).draw().resize((60, 40))
    image.save(buffer, format="jpeg", exif=exif)
    facts = describe_file(buffer.getvalue())
    assert (facts["width"], facts["height"]) == (40, 60) and facts["taken"] == datetime(2020, 1, 2, 3, 4, 5)
    exif.get_ifd(0x8769)[0x9003] = "2019:12:31 23:59:59"
    image.save(buffer := BytesIO(), format="jpeg", exif=exif)
    assert describe_file(buffer.getvalue())["taken"] == datetime(2019, 12, 31, 23, 59, 59)
    exif.get_ifd(0x8769)[0x9003] = "0000:00:00 00:00:00"
    image.save(buffer := BytesIO(), format="jpeg", exif=exif)
    facts = describe_file(buffer.getvalue())
    assert facts["taken"] == datetime(2020, 1, 2, 3, 4, 5) and facts["width"] == 40
    assert describe_file(b"no picture").keys() == {"hash"}
    assert describe_file(b"no picture")["hash"] != facts["hash"] and len(facts["hash"]) == 32
