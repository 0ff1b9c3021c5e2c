"""What is measured of the embeddings of a table, and when it is measured again."""

import pytest
import torch

from modeling_lotlip.table import thresholds as module
from modeling_lotlip.table.measurements import EXACT_SEARCH, Measurements, read_measurements, write_measurements
from modeling_lotlip.table.schema import to_vectors
from modeling_lotlip.table.storage import EmbeddingTable
from modeling_lotlip.table.thresholds import list_due_kinds, measure
from modeling_lotlip.table.vector_index import Queries, sample_rows
from tests.helpers.embeddings import draw_unit_vectors, make_table


@pytest.fixture
def measured(tmp_path) -> tuple[EmbeddingTable, torch.Tensor, torch.Tensor]:
    """A table of 2,500 images that is measured, their embeddings, and those of the texts."""
    generator = torch.manual_seed(0)
    embeds = draw_unit_vectors(generator, 2500, 16)
    texts = draw_unit_vectors(generator, 60, 16)
    table = make_table(tmp_path, embeds)
    measure(table, "image", texts)
    return table, embeds, texts


def test_a_table_is_due_until_it_is_measured(tmp_path):
    table = make_table(tmp_path, draw_unit_vectors(torch.manual_seed(0), 10, 4))
    assert read_measurements(table) is None
    assert list_due_kinds(table) == ["image"]
    result = measure(table, "image", torch.eye(4))
    assert read_measurements(table) == result
    assert list_due_kinds(table) == []


def test_an_empty_table_is_not_due(tmp_path):
    assert list_due_kinds(EmbeddingTable.create(tmp_path, 4, {})) == []


def test_thresholds_are_those_computed_by_hand(measured):
    table, embeds, texts = measured
    result = read_measurements(table)
    assert result.num_rows == 2500
    best = (texts @ embeds.t()).amax(dim=1)
    sixth = torch.quantile(best, 1 / 6)
    median = best.sort().values[29:31].mean()
    expected = median + module.SPREADS * (median - sixth)
    assert result.score_threshold == pytest.approx(expected.item(), abs=1e-5)
    sample = to_vectors(sample_rows(table, "image", module.NUM_SAMPLED)["embedding"])
    nearest_others = (sample @ embeds.t()).topk(2, dim=1).values[:, 1]
    distance = torch.quantile(1 - nearest_others, module.COPY_QUANTILE)
    expected = 1 - module.COPY_DISTANCE * distance
    assert result.copy_threshold == pytest.approx(expected.item(), abs=1e-5)


def test_a_sample_has_different_rows_of_the_table(measured):
    table, embeds, _ = measured
    sample = to_vectors(sample_rows(table, "image", module.NUM_SAMPLED)["embedding"])
    assert len(sample.unique(dim=0)) == 500
    assert (sample @ embeds.t()).amax(dim=1).min() > 0.9999


def test_the_score_threshold_bears_a_third_of_texts_that_fit_an_image(measured):
    table, embeds, texts = measured
    threshold = read_measurements(table).score_threshold
    fitting = torch.cat([texts[:40], embeds[:20]])
    assert abs(measure(table, "image", fitting).score_threshold - threshold) < 0.4 * (1 - threshold)


def add_images(table: EmbeddingTable, name: str, embeds: torch.Tensor) -> None:
    """Adds images, whose keys are the name and a number."""
    table.append([{"key": f"{name} {row}", "embedding": embedding} for row, embedding in enumerate(embeds)])


def test_many_new_or_missing_images_are_measured_again(measured):
    table, embeds, _ = measured
    add_images(table, "more", embeds[:300])
    assert list_due_kinds(table) == ["image"]
    table.delete([f"more {row}" for row in range(200)])
    assert list_due_kinds(table) == []


def test_as_many_other_images_are_measured_again(measured):
    """The count is that of before, and nothing that was measured is left."""
    table, embeds, _ = measured
    table.delete([f"{row:05}" for row in range(1000)])
    add_images(table, "other", embeds[:1000])
    assert table.count() == read_measurements(table).num_rows
    assert list_due_kinds(table) == ["image"]


def test_other_images_under_the_same_names_are_measured_again(tmp_path):
    table = EmbeddingTable.create(tmp_path, 4, {"kinds": ["image"]})
    rows = []
    for index, embedding in enumerate(torch.eye(4)):
        rows.append({"key": f"{index}.jpg", "hash": f"old {index}", "embedding": embedding})
    table.append(rows)
    measure(table, "image", torch.eye(4))
    table.delete([row["key"] for row in rows])
    table.append([{**row, "hash": f"new {index}"} for index, row in enumerate(rows)])
    assert list_due_kinds(table) == ["image"]


@pytest.mark.parametrize("count", [1, 2])
def test_thresholds_of_few_images(tmp_path, count):
    table = make_table(tmp_path, torch.ones(count, 4) / 2)
    result = measure(table, "image", torch.nn.functional.normalize(torch.ones(3, 4), dim=-1))
    assert result.score_threshold == pytest.approx(1, abs=1e-3)
    assert result.copy_threshold == pytest.approx(1, abs=1e-3)
    assert result.search == EXACT_SEARCH


def test_measurements_are_kept_by_named_fields(tmp_path):
    table = make_table(tmp_path, torch.eye(4))
    expected = Measurements(score_threshold=0.25, copy_threshold=0.5, num_rows=4, sample={"00000": None})
    write_measurements(table, "image", expected)
    assert read_measurements(EmbeddingTable(tmp_path)) == expected


def test_measurements_of_an_earlier_version_are_made_anew(tmp_path):
    """It wrote a list."""
    table = make_table(tmp_path, torch.eye(4))
    metadata = {"measured": '{"image": [0.25, 0.5, 4, 1.0, null, null]}'}
    table.table.update_field_metadata({"path": "embedding", "metadata": metadata})
    assert read_measurements(table) is None
    assert list_due_kinds(table) == ["image"]


@pytest.mark.parametrize(("num_rows", "is_other"), [(90, False), (89, True), (110, False), (111, True)])
def test_a_tenth_more_or_less_is_another_count(num_rows, is_other):
    measured = Measurements(score_threshold=0.25, copy_threshold=0.5, num_rows=100)
    assert module.has_other_count(measured, num_rows) == is_other


@pytest.mark.parametrize(
    ("max_images", "indices"),
    [(2, [0, 1, 2, 5]), (3, [0, 1, 2, 4, 6]), (5, [0, 1, 2, 3, 4, 5, 6]), (9, [0, 1, 2, 3, 4, 5, 6])],
)
def test_all_texts_and_an_even_part_of_the_images_are_queries(max_images, indices):
    queries = Queries(torch.arange(7.0)[:, None], [None, None, 10, 11, 12, 13, 14])
    assert module.thin_out(queries, 2, max_images) == indices
    taken = module.take_queries(queries, [1, 4])
    assert taken.embeds.flatten().tolist() == [1, 4]
    assert taken.own_ids == [None, 12]


@pytest.mark.parametrize(("count", "num_remembered"), [(1, 1), (99, 99), (100, 100), (199, 199), (200, 100)])
def test_of_many_images_some_are_remembered(count, num_remembered):
    names = [f"{index}" for index in range(count)]
    remembered = module.remember(names, [f"hash {name}" for name in names])
    assert len(remembered) == num_remembered
    assert remembered["0"] == "hash 0"


def test_the_threshold_of_scores_is_above_the_median_by_the_spread_below_it():
    best = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert module.find_score_threshold(best) == pytest.approx(0.4 + 1.5 * (0.4 - 0.2))
    torch.set_default_dtype(torch.float64)
    try:
        again = module.find_score_threshold(best)
    finally:
        torch.set_default_dtype(torch.float32)
    assert again == pytest.approx(0.4 + 1.5 * (0.4 - 0.2))


def test_copies_are_much_nearer_than_the_nearest_other_image():
    similarities = torch.tensor([[1.0, 0.5], [1.0, 0.6], [1.0, 0.7], [1.0, 0.8], [1.0, 1.0]])
    assert module.find_copy_threshold(similarities) == pytest.approx(1 - 0.15 * 0.4)
    assert module.find_copy_threshold(torch.tensor([[1.0, 1.0001]])) == 1
