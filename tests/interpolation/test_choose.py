"""Which mixture is the best."""

import pytest

from modeling_lotlip.interpolation.choose import MeasuredMixture, Results, choose_best


def make_results(short: float, long: float, zero_shot: float | None = None) -> Results:
    scores = {"short_mean_recall": short, "long_mean_recall": long}
    if zero_shot is not None:
        scores["zero_shot_top1"] = zero_shot
    # the other half would choose otherwise
    return {"chosen_on": scores, "reported_on": {name: 100 - score for name, score in scores.items()}}


START = make_results(80, 10)
MIXTURES = [
    MeasuredMixture(0, START),
    MeasuredMixture(0.4, make_results(80.2, 30)),
    MeasuredMixture(0.6, make_results(79.6, 45)),
    MeasuredMixture(0.8, make_results(78, 60)),
    MeasuredMixture(1, make_results(70, 80)),
]


@pytest.mark.parametrize("max_loss, expected", [(0, 0.4), (0.5, 0.6), (2, 0.8), (100, 1)])
def test_the_best_finds_most_long_texts_among_those_that_lose_no_more_than_allowed(max_loss, expected):
    assert choose_best(MIXTURES, START, max_loss).alpha == expected


def test_a_loss_that_is_as_large_as_allowed_is_allowed():
    """As floating-point numbers 60.1 - 59.8 is more than 0.3."""
    start = make_results(60.1, 10)
    mixtures = [MeasuredMixture(0, start), MeasuredMixture(0.4, make_results(59.8, 30))]
    assert choose_best(mixtures, start, 0.3).alpha == 0.4


def test_of_equal_mixtures_the_one_nearest_to_the_start_is_the_best():
    equal = [MeasuredMixture(alpha, make_results(80, 30)) for alpha in (0.2, 0.4, 0.6)]
    assert choose_best(equal, START, 0).alpha == 0.2


def test_classes_count_as_short_captions_do():
    start = make_results(80, 10, zero_shot=60)
    mixtures = [MeasuredMixture(0.4, make_results(80, 30, 60)), MeasuredMixture(0.8, make_results(80, 60, 50))]
    assert choose_best(mixtures, start, 1).alpha == 0.4


def test_where_all_lose_too_much_it_is_the_one_that_loses_least_and_that_is_said(caplog):
    start = make_results(90, 10)
    assert choose_best(MIXTURES, start, 1).alpha == 0.4
    assert "Every mixture loses more than `--max_loss 1`: the one of alpha 0.4 loses least, 9.8 points." in caplog.text
