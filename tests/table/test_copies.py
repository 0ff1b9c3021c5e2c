"""Images that are nearly the same are one result."""

import pytest
import torch

from modeling_lotlip.table import copies
from modeling_lotlip.table.conditions import in_folder
from modeling_lotlip.table.copies import group_copies, search_copies, search_groups
from modeling_lotlip.table.measurements import read_measurements
from modeling_lotlip.table.storage import EmbeddingTable
from modeling_lotlip.table.vector_index import Found, search
from tests.helpers.embeddings import draw_unit_vectors, make_table


@pytest.fixture
def copied(tmp_path) -> tuple[EmbeddingTable, torch.Tensor]:
    """Seventy-five copies of each image, far more than are looked at to find the results, and the images."""
    generator = torch.manual_seed(0)
    images = draw_unit_vectors(generator, 20, 32)
    noise = 0.002 * torch.randn(1500, 32, generator=generator)
    embeds = torch.nn.functional.normalize(images.repeat(75, 1) + noise, dim=-1)
    return make_table(tmp_path, embeds, score_threshold=0.0, copy_threshold=0.98), images


@pytest.mark.parametrize("k", [1, 3])
def test_all_copies_of_a_result_are_counted(copied, k):
    table, images = copied
    query = draw_unit_vectors(torch.manual_seed(1), 32)
    results = search_groups(table, query, k, measured=read_measurements(table))
    expected = (images @ query).topk(k).indices.tolist()
    assert len(results) == k
    for group, image in zip(results, expected):
        assert {int(key) % 20 for key in group.keys} == {image}
        assert len(set(group.keys)) == 75
    assert results[0].keys[0] == search(table, query, 1).keys[0]


def test_copies_stand_in_the_order_of_their_similarity_with_the_query(copied):
    table, _ = copied
    query = draw_unit_vectors(torch.manual_seed(1), 32)
    for group in search_groups(table, query, 3, measured=read_measurements(table)):
        assert group.similarities.sort(descending=True).values.equal(group.similarities)
        torch.testing.assert_close(group.similarities, group.embeds @ query, rtol=0, atol=1e-6)


def test_copies_outside_of_a_filter_are_none(tmp_path):
    keys = ["a/0", "b/0", "a/1", "b/1", "a/2"]
    embeds = torch.eye(3)[[0, 0, 1, 1, 0]]
    table = make_table(tmp_path, embeds, keys, score_threshold=0.0, copy_threshold=0.98)
    query = torch.tensor([0.8, 0.6, 0.0])
    results = search_groups(table, query, 5, where=in_folder("a"), measured=read_measurements(table))
    assert [sorted(group.keys) for group in results] == [["a/0", "a/2"], ["a/1"]]


@pytest.mark.parametrize("num_first", [97, 99])
def test_identical_copies_of_the_last_result_are_counted(tmp_path, num_first):
    """Also where of these the first one alone is among what is looked at."""
    embeds = torch.eye(3)[[0] * num_first + [1] * 5 + [2] * 40]
    table = make_table(tmp_path, embeds, score_threshold=0.0, copy_threshold=0.98)
    query = torch.tensor([0.8, 0.6, 0.0])
    results = search_groups(table, query, k=2, measured=read_measurements(table))
    assert [len(group.keys) for group in results] == [num_first, 5]


@pytest.mark.parametrize("k", [1, 2, 40])
def test_of_identical_copies_the_first_key_stands_for_all(tmp_path, k):
    embeds = draw_unit_vectors(torch.manual_seed(2), 20, 32).repeat(2, 1)
    table = make_table(tmp_path, embeds, score_threshold=0.0, copy_threshold=0.999)
    query = draw_unit_vectors(torch.manual_seed(1), 32)
    for group in search_groups(table, query, k, measured=read_measurements(table)):
        assert group.keys == sorted(group.keys)


def test_images_that_are_all_copies_are_one_result(tmp_path):
    table = make_table(tmp_path, torch.eye(3)[[0] * 10], score_threshold=0.0, copy_threshold=0.98)
    (group,) = search_groups(table, torch.tensor([0.8, 0.6, 0.0]), k=1, measured=read_measurements(table))
    assert len(set(group.keys)) == 10


def test_images_that_are_deleted_during_a_search_are_no_result(tmp_path, monkeypatch):
    embeds = torch.eye(3)[[0] * 5 + [1] * 200]
    table = make_table(tmp_path, embeds, score_threshold=0.0, copy_threshold=0.98)

    def delete_and_find_copies(*question: object) -> Found:
        table.delete([f"{number:05}" for number in range(5)])
        return search_copies(*question)

    monkeypatch.setattr(copies, "search_copies", delete_and_find_copies)
    results = search_groups(table, torch.tensor([0.8, 0.6, 0.0]), k=2, measured=read_measurements(table))
    assert [len(group.keys) for group in results] == [200]


def test_a_near_copy_is_found_behind_many_that_are_more_similar_to_the_query(tmp_path):
    degrees = torch.tensor([10.0, *[-15.0] * 60, 20.0]).deg2rad()
    embeds = torch.stack([degrees.cos(), degrees.sin()], dim=1)
    table = make_table(tmp_path, embeds, score_threshold=0.0, copy_threshold=0.98)
    results = search_groups(table, torch.tensor([1.0, 0.0]), k=1, measured=read_measurements(table))
    assert [group.keys for group in results] == [["00000", "00061"]]


@pytest.mark.parametrize(
    ("threshold", "k", "groups"),
    [
        (0.9, 3, [[0, 2], [1], [3]]),
        (0.9, 2, [[0, 2], [1]]),
        (0.999, 4, [[0], [1], [2], [3]]),
        (0.96, 1, [[0, 2]]),
    ],
)
def test_groups_begin_with_the_best_that_is_in_none(threshold, k, groups):
    embeds = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.96, 0.28], [0.6, 0.8]])
    assert group_copies(embeds, threshold, k) == groups
