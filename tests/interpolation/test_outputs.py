"""Arguments of mixtures, and tables of what was measured."""

import pytest

from modeling_lotlip.interpolation.arguments import InterpolateArguments
from modeling_lotlip.interpolation.choose import MeasuredMixture
from modeling_lotlip.interpolation.outputs import Interpolation, format_interpolation


NAMES = {"start": "start", "end": "end", "output_dir": "out"}


@pytest.mark.parametrize(
    ("alphas", "expected"),
    [([0.6, 0.2], [0, 0.2, 0.6, 1]), ([0, 0.5, 0.5, 1], [0, 0.5, 1])],
)
def test_both_models_are_measured_and_each_mixture_once(alphas, expected):
    assert InterpolateArguments(**NAMES, alphas=alphas).all_alphas == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alphas": [1.1]}, "--alphas must be at most 1"),
        ({"alphas": [-0.1]}, "--alphas must be at least 0"),
        ({"max_loss": float("inf")}, "--max_loss must be a finite number, got inf"),
        ({"max_loss": -1}, "--max_loss must be at least 0"),
        ({"batch_size": 0}, "--batch_size must be at least 1"),
        ({"streaming": True}, "--streaming is not for `lotlip interpolate`"),
        ({"templates": ["a {}"]}, "--templates has no effect without --label_column"),
        ({"class_names": ["a"]}, "--class_names has no effect without --label_column"),
        ({"class_names_file": "names.txt"}, "--class_names_file has no effect without --label_column"),
        ({"label_column": "label", "templates": ["a photo"]}, "--templates 'a photo' has no {}"),
    ],
)
def test_arguments_that_make_no_mixture_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        InterpolateArguments(**NAMES, **options)


def make_results(short: float, long: float) -> dict[str, dict[str, float]]:
    chosen_on = {"short_mean_recall": short, "long_mean_recall": long}
    return {"chosen_on": chosen_on, "reported_on": {name: score / 2 for name, score in chosen_on.items()}}


@pytest.mark.parametrize(
    ("is_stretched", "start", "row_of_start"),
    [
        (True, (90, 8), "| START as it is | 90.0 | 8.0 | 45.0 | 4.0 |"),
        (True, (80, 10), "| START as it is | 80.0 | 10.0 | 40.0 | 5.0 |"),
        (False, (80, 12), "| START as it is | 80.0 | 12.0 | 40.0 | 6.0 |"),
        (False, (80.0001, 10), None),
    ],
)
def test_a_table_has_a_row_for_each_mixture_of_which_the_best_is_bold(is_stretched, start, row_of_start):
    """START has a row where it finds something else than alpha 0: END may truncate texts elsewhere."""
    mixtures = [MeasuredMixture(0, make_results(80, 10)), MeasuredMixture(0.5, make_results(70, 30))]
    start = make_results(*start)
    interpolation = Interpolation(start, mixtures, mixtures[1], is_stretched, {"chosen_on": 4, "reported_on": 5})
    titles, _, *rows = format_interpolation(interpolation).splitlines()
    assert titles == "| alpha | short, to choose | long, to choose | short, to report | long, to report |"
    expected = ["| 0 | 80.0 | 10.0 | 40.0 | 5.0 |", "| **0.5** | **70.0** | **30.0** | **35.0** | **15.0** |"]
    if row_of_start is not None:
        expected.insert(0, row_of_start)
    assert rows == expected


def test_the_results_name_no_folder_of_this_machine(tmp_path):
    (tmp_path / "end").mkdir()
    args = InterpolateArguments(start="someone/start", end=str(tmp_path / "end"), output_dir="out", max_loss=0.25)
    mixtures = [MeasuredMixture(0, make_results(80, 10)), MeasuredMixture(1, make_results(70, 30))]
    interpolation = Interpolation(
        make_results(90, 8), mixtures, mixtures[1], False, {"chosen_on": 4, "reported_on": 5}
    )
    results = interpolation.as_dict(args)
    assert (results["start"], results["end"]) == ("someone/start", "end")
    assert (results["max_loss"], results["best_alpha"]) == (0.25, 1)
    assert results["start_results"] == make_results(90, 8)
    assert results["mixtures"][1] == {"alpha": 1, **make_results(70, 30)}
