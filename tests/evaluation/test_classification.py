"""Zero-shot classification gives the numbers that one gets by calling the model by hand."""

import re

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Json, Value

from modeling_lotlip import DualEncoder, LotlipModel, LotlipProcessor
from modeling_lotlip.data.arguments import DatasetArguments, EvaluationSplitArguments
from modeling_lotlip.evaluation import classification
from modeling_lotlip.evaluation.arguments import ClassificationArguments, check_benchmark
from modeling_lotlip.evaluation.classification import (
    NUM_CONFUSED,
    check_labels,
    classify,
    evaluate_zero_shot,
    find_class,
    format_classification,
    list_confused,
    read_class_names,
    resolve_numbers,
)
from tests.helpers.commands import read_error, run_command
from tests.helpers.images import NO_IMAGE, replace_values


def test_classify_averages_templates_and_counts_by_hand(model_dir, evaluation_dir, tmp_path):
    templates = ["a photo of {}", "the {} of sand"]
    arguments = ("--model_name_or_path", model_dir, "--dataset_name", evaluation_dir, "--batch_size", 3)
    results = run_command("classify", tmp_path / "results.json", *arguments, "--templates", *templates)

    model = LotlipModel.from_pretrained(model_dir).eval()
    processor = LotlipProcessor.from_pretrained(model_dir)
    dataset = Dataset.load_from_disk(evaluation_dir)
    names = ["red boat", "green car", "blue house", "yellow tree"]
    with torch.no_grad():
        classes = []
        for name in names:
            tokens = processor.tokenizer([t.format(name) for t in templates], padding=True, return_tensors="pt")
            embeds = model.get_text_features(**tokens).pooler_output
            classes.append((embeds / embeds.norm(dim=-1, keepdim=True)).mean(dim=0))
        images = processor.image_processor([row["image"] for row in dataset], return_tensors="pt")
        images = model.get_image_features(**images).pooler_output
    classes = torch.stack([embed / embed.norm() for embed in classes])
    predictions = (images @ classes.t()).argmax(dim=-1)
    labels = torch.tensor(dataset["label"])
    assert results["top1"] == pytest.approx(100 * (predictions == labels).float().mean().item())
    assert results["top5"] == 100
    assert results["num_images"] == 10
    assert results["num_classes"] == 4
    wrong = sum(pair["count"] for pair in results["most_confused"])
    assert wrong == (predictions != labels).sum().item()

    # the same classes from the command line and from a file
    arguments = (*arguments, "--templates", *templates)
    named = run_command("classify", tmp_path / "named.json", *arguments, "--class_names", *names)
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n\n")
    filed = run_command("classify", tmp_path / "filed.json", *arguments, "--class_names_file", tmp_path / "names.txt")
    assert named == filed == results


def test_several_models_in_one_table(family_folders, noise_dir, tmp_path, capsys):
    models = [family_folders("clip"), family_folders("lotlip")]
    labels = Dataset.load_from_disk(noise_dir).add_column("label", ["red", "car", "sea"] * 3)
    labels.save_to_disk(tmp_path / "data")
    arguments = ("--dataset_name", tmp_path / "data", "--class_names", "red", "car", "sea", "--model")
    rows = run_command("classify", tmp_path / "results.json", *arguments, *models)["rows"]
    printed = capsys.readouterr().out
    assert "| model | images | classes | top-1 | top-5 |" in printed
    for row, model in zip(rows, models, strict=True):
        assert row["model"] == str(model)
        assert row["most_confused"]
        assert row == run_command("classify", tmp_path / "alone.json", *arguments, model)
        assert f"| {model} | 9 | 3 | {row['top1']:.1f} | 100.0 |" in printed
        pair = row["most_confused"][0]
        assert f"{model}:\n{pair['count']} x {pair['class']} taken for {pair['taken_for']}\n" in printed


def test_zero_shot_classification_refuses_what_is_unclear(model_dir, evaluation_dir, capsys):
    arguments = ("--model", model_dir, "--dataset_name", evaluation_dir, "--device", "cpu")
    for wrong, message in (
        (("--class_names", "red", "blue"), "2 class names.*has 4 classes"),
        (("--label_column", "caption"), "give `--class_names` or `--class_names_file`"),
    ):
        error = read_error(capsys, "classify", *arguments, *wrong)
        assert re.search(message, error)
    with pytest.raises(ValueError, match="label -1 is none"):
        find_class(-1, ["no", "yes"])


@pytest.mark.parametrize("name", ["image_embeds", "class_embeds"])
@pytest.mark.parametrize(("value", "message"), [(torch.nan, "holds NaN"), (torch.inf, "holds infinity")])
def test_embeddings_that_are_not_finite_are_no_classes(name, value, message):
    embeds = {"image_embeds": torch.eye(2), "class_embeds": torch.eye(2)}
    embeds[name][1, 0] = value
    with pytest.raises(ValueError, match=rf"`{name}\[1\]` {message}"):
        classify(labels=[0, 1], class_names=["no", "yes"], **embeds)


def test_names_of_classes(tmp_path, caplog):
    (tmp_path / "names.txt").write_text("\ufeffmissile\ncrane\nmissile\n")
    names = read_class_names(ClassLabel(3), class_names_file=tmp_path / "names.txt")
    assert names == ["missile", "crane", "missile"]  # as in open_clip's list for ImageNet
    assert "The class names ['missile'] are there more than once" in caplog.text


def test_a_blank_line_in_the_file_of_names_moves_no_name_to_another_label(tmp_path):
    (tmp_path / "names.txt").write_text("boat\n\ncar\n")
    with pytest.raises(ValueError, match="has nothing in line 2"):
        read_class_names(None, class_names_file=tmp_path / "names.txt")


def test_labels_that_seem_to_be_counted_from_1_are_warned_of(caplog):
    check_labels(Dataset.from_dict({"label": [1, 2, 1]}), "label", ["boat", "car", "house"])
    assert "No image has the label 0, which is 'boat'. If the labels are counted from 1" in caplog.text


@pytest.mark.parametrize("labels", [[0, 2], ["car"], [2]])
def test_other_labels_are_not_warned_of(caplog, labels):
    check_labels(Dataset.from_dict({"label": labels}), "label", ["boat", "car", "house"])
    assert not caplog.records


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, None, None], "Row 2 of 4 has no label: write one, or leave the row out"),
        (["boat", "car", "cat"], "Row 2 of 3: The label 'cat' is none of the 2 classes"),
        ([0, 1, 2, 2], "Row 2 of 4: The label 2 is none of the 2 classes"),
    ],
)
def test_the_row_of_a_label_of_no_class_is_named(labels, message):
    with pytest.raises(ValueError, match=message):
        check_labels(Dataset.from_dict({"label": labels}), "label", ["boat", "car"])


@pytest.mark.parametrize(("labels", "message"), [([[0, 1], [1]], "lists"), ([{"boat": 1, "car": 0}], "dictionaries")])
def test_several_labels_of_an_image_are_refused(labels, message):
    with pytest.raises(ValueError, match=f"`--label_column label` holds {message}: write one"):
        check_labels(Dataset.from_dict({"label": labels}), "label", ["boat", "car"])


def test_labels_of_several_types_are_refused():
    labels = Dataset.from_dict({"label": [0, "boat"]}, Features({"label": Json()}))
    with pytest.raises(ValueError, match="`--label_column label` holds values of several types: write all"):
        check_labels(labels, "label", ["boat", "car"])


def test_labels_are_those_of_the_images_that_can_be_read(model_dir, evaluation_dir, caplog):
    encoder = DualEncoder.from_pretrained(model_dir, device="cpu")
    encoder.model.train()
    dataset = Dataset.load_from_disk(evaluation_dir)
    names = ["red", "a car", "the sea", "sand"]
    templates = ["a photo of {}"]
    damaged = replace_values(dataset, {1: {"image": NO_IMAGE}})
    results = evaluate_zero_shot(encoder, damaged, names, templates, batch_size=3)
    num_unreadable_images = results.pop("num_unreadable_images")
    assert num_unreadable_images == 1
    assert "torn.png" in caplog.text
    assert encoder.model.training
    others = dataset.select([index for index in range(10) if index != 1])
    expected = evaluate_zero_shot(encoder, others, names, templates, batch_size=3)
    assert results == expected
    assert results["num_images"] == 9
    pairs = {(pair["class"], pair["taken_for"]) for pair in results["most_confused"]}
    assert len(pairs) > 2, "so few mistakes tell no labels apart"
    with pytest.raises(ValueError, match="No image of the evaluation data can be read"):
        evaluate_zero_shot(encoder, damaged.select([1]), names, templates)
    with pytest.raises(ValueError, match="label 3 is none of the 3 classes"):
        evaluate_zero_shot(encoder, dataset, names[:3], templates)


def test_the_format_of_a_dataset_changes_no_class(encoder, evaluation_dir):
    dataset = Dataset.load_from_disk(evaluation_dir)
    names = ["red", "a car", "the sea", "sand"]
    expected = evaluate_zero_shot(encoder, dataset, names, ["{}"])
    assert evaluate_zero_shot(encoder, dataset.with_format("torch", columns=["image"]), names, ["{}"]) == expected
    missing = dataset.remove_columns("label").add_column("label", [0, None, *range(8)]).with_format("pandas")
    with pytest.raises(ValueError, match="Row 1 of 10 has no label"):
        evaluate_zero_shot(encoder, missing, names, ["{}"])


def test_accuracies_and_confused_pairs():
    similarities = torch.tensor([[1, 2, 0], [1, 2, 0], [2, 1, 0], [0, 1, 2], [0, 2, 1.0]])
    results = classify(similarities, ["a", 0, 0, "b", 2], torch.eye(3), ["a", "b", "c"])
    assert results["top1"] == pytest.approx(20)
    assert results["top5"] == pytest.approx(100)
    assert results["most_confused"][0] == {"class": "a", "taken_for": "b", "count": 2}


def test_labels_that_are_true_or_false_are_indices():
    results = classify(torch.eye(2), [True, False], torch.eye(2), ["no", "yes"])
    assert results["most_confused"] == [
        {"class": "yes", "taken_for": "no", "count": 1},
        {"class": "no", "taken_for": "yes", "count": 1},
    ]


@pytest.mark.parametrize(("rank", "is_hit"), [(0, True), (4, True), (5, False)])
def test_of_many_classes_the_five_most_similar_count(rank, is_hit):
    similarities = torch.arange(7.0).flip(0)[None]
    results = classify(similarities, [rank], torch.eye(7), list("abcdefg"))
    assert (results["top5"] == 100) == is_hit
    assert (results["top1"] == 100) == (rank == 0)


@pytest.mark.parametrize(
    ("similarities", "top1", "top5"),
    [
        ([1.0] * 20, 5, 25),
        ([1.0, 1.0 + 1e-7] + [0.0] * 18, 50, 100),
        ([1.0] * 3 + [2.0] * 4 + [0.0] * 13, 0, 100 / 3),
        ([1.0] * 3 + [2.0] * 5 + [0.0] * 12, 0, 0),
    ],
    ids=["all equal", "two but for rounding", "behind four", "behind five"],
)
@pytest.mark.parametrize("label", [0, 1])
def test_classes_that_are_equally_similar_share_the_hit(similarities, top1, top5, label):
    names = [str(index) for index in range(20)]
    results = classify(torch.tensor([similarities]), [label], torch.eye(20), names)
    assert results["top1"] == pytest.approx(top1)
    assert results["top5"] == pytest.approx(top5)


@pytest.mark.parametrize(("num_classes", "is_warned"), [(5, True), (6, False)])
def test_so_few_classes_that_all_are_among_the_first_are_warned_of(caplog, num_classes, is_warned):
    classification.logger.warning_once.cache_clear()
    names = [str(index) for index in range(num_classes)]
    classify(torch.eye(num_classes), [0] * num_classes, torch.eye(num_classes), names)
    assert (f"There are {num_classes} classes, and so each is among the first 5" in caplog.text) == is_warned


@pytest.mark.parametrize(("label", "index"), [(0, 0), (1, 1), ("yes", 1)])
def test_a_label_is_the_index_or_the_name_of_a_class(label, index):
    assert find_class(label, ["no", "yes"]) == index


@pytest.mark.parametrize("label", [-1, 2, "maybe", 0.5, None])
def test_a_label_of_no_class_is_refused(label):
    with pytest.raises(ValueError, match="is none of the 2 classes"):
        find_class(label, ["no", "yes"])


def test_the_most_frequent_mistakes_are_listed():
    names = [f"class {number}" for number in range(NUM_CONFUSED + 2)]
    labels = []
    predictions = []
    for number in range(1, len(names)):
        labels += [number] * number
        predictions += [0] * number
    confused = list_confused([*labels, 3], [*predictions, 3], names)
    counts = [pair["count"] for pair in confused]
    assert counts == list(range(NUM_CONFUSED + 1, 1, -1))
    assert confused[0]["class"] == names[-1]
    assert confused[0]["taken_for"] == names[0]


def test_one_model_is_not_named_in_its_table():
    row = {"num_images": 4, "num_classes": 2, "top1": 25.04, "top5": 100.0}
    pair = {"class": "a", "taken_for": "b", "count": 3}
    table = format_classification(row | {"most_confused": [pair]})
    titles, _, cells, _, confused = table.splitlines()
    assert titles == "| images | classes | top-1 | top-5 |"
    assert cells == "| 4 | 2 | 25.0 | 100.0 |"
    assert confused == "3 x a taken for b"
    assert "taken for" not in format_classification(row | {"most_confused": []})


@pytest.mark.parametrize("num_names", [1, 3])
def test_as_many_names_as_classes_are_asked_for(num_names):
    names = ["no", "yes", "maybe"][:num_names]
    with pytest.raises(ValueError, match=f"{num_names} class names .* the dataset has 2 classes"):
        read_class_names(ClassLabel(names=["a", "b"]), names)


@pytest.mark.parametrize("names", [["car", "red boat"], ["Car", "Red_Boat"]])
def test_the_datasets_own_names_in_another_order_are_refused(names):
    labels = ClassLabel(names=["red_boat", "car"])
    with pytest.raises(ValueError, match="are those of the dataset, but in another order"):
        read_class_names(labels, names)


@pytest.mark.parametrize(
    ("labels", "told"),
    [(["0", "1", "10", "2"], "'two' is the label 10, not 2"), (["00", "01", "02"], None), (["0", "1"], None)],
)
def test_names_of_labels_that_are_numbers_in_the_order_of_texts_are_told(caplog, labels, told):
    """The folders 0 to 10 are sorted so, and names are often written in the order of the numbers."""
    names = ["zero", "one", "two", "ten"][: len(labels)]
    assert read_class_names(ClassLabel(names=labels), names) == names
    assert ("in the order" in caplog.text) == (told is not None)
    assert told is None or told in caplog.text


def test_the_datasets_own_names_in_its_order_are_taken_as_they_are_written():
    names = ["Red boat", "Car"]
    assert read_class_names(ClassLabel(names=["red_boat", "car"]), names) == names


@pytest.mark.parametrize(
    ("labels", "feature", "resolved"),
    [
        ([5, 7], None, ["5", "7"]),
        ([7, "5"], Value("int64"), ["7", "5"]),
        ([0, 1], Value("int64"), [0, 1]),
        ([0, 5], Value("int64"), [0, 5]),
        ([5, 7], ClassLabel(num_classes=8), [5, 7]),
    ],
)
def test_labels_that_are_numbers_are_names_where_all_are_such(labels, feature, resolved):
    assert resolve_numbers(labels, feature, ["7", "5"]) == resolved


def test_some_of_the_labels_are_resolved_as_all_are():
    """As those of one half of the rows."""
    assert resolve_numbers([1, 2], None, ["1", "2", "3"], all_labels=[0, 1, 2]) == [1, 2]
    assert resolve_numbers([1, 2], None, ["1", "2", "3"], all_labels=[1, 2, 3]) == ["1", "2"]


def test_a_number_that_is_the_name_of_a_class_is_a_label():
    check_labels(Dataset.from_dict({"label": [7, 5]}), "label", ["5", "6", "7"])


def test_names_of_classes_are_those_of_the_dataset_unless_others_are_given(caplog):
    labels = ClassLabel(names=["red_boat", "car"])
    assert read_class_names(labels) == ["red boat", "car"]
    assert read_class_names(labels, ["Boot", "Auto"]) == ["Boot", "Auto"]
    assert "more than once" not in caplog.text


def test_a_prompt_needs_a_place_for_the_name_of_a_class():
    with pytest.raises(ValueError, match="--templates 'a photo' has no {} for the class name"):
        ClassificationArguments(templates=["a photo of {}", "a photo"])


@pytest.mark.parametrize(
    ("source", "split", "message"),
    [
        ({}, {}, "--benchmark needs --data_dir"),
        ({"data_dir": "a", "dataset_name": "b"}, {}, "--benchmark needs --data_dir"),
        ({"data_dir": "a", "dataset_config_name": "b"}, {}, "--dataset_config_name has no effect"),
        ({"data_dir": "a", "data_files": ["b"]}, {}, "--data_files has no effect"),
        ({"data_dir": "a", "streaming": True}, {}, "--streaming has no effect on a --benchmark"),
        ({"data_dir": "a", "image_column": "b"}, {}, "--image_column has no effect"),
        ({"data_dir": "a"}, {"eval_split": "train"}, "--eval_split has no effect on a --benchmark"),
        ({"data_dir": "a"}, {"max_eval_samples": 3}, "--max_eval_samples has no effect"),
    ],
)
def test_a_benchmark_is_read_as_it_is_published(source, split, message):
    with pytest.raises(ValueError, match=message):
        check_benchmark(DatasetArguments(**source), EvaluationSplitArguments(**split))


def test_the_first_rows_of_a_benchmark_are_for_statistics_alone():
    check_benchmark(DatasetArguments(data_dir="a"), EvaluationSplitArguments())
    split = EvaluationSplitArguments(max_eval_samples=3)
    check_benchmark(DatasetArguments(data_dir="a"), split, is_whole=False)
