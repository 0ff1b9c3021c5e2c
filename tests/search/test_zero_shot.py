"""Zero-shot classification of one image."""

import copy

import pytest
import torch

from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.search.query import QueryError, read_query_image
from modeling_lotlip.search.zero_shot import classify_image


def test_classification(model_and_processor, tmp_path):
    model, processor = model_and_processor
    image = make_scene(5, 0).draw()
    labels = classify_image(model, processor, image, "red boat\n\nblue house\ngreen car ", "a photo of a {}")
    inputs = processor(
        images=image,
        text=[f"a photo of a {name}" for name in ("red boat", "blue house", "green car")],
        return_tensors="pt",
    )
    expected = dict(
        zip(("red boat", "blue house", "green car"), model(**inputs).logits_per_image[0].softmax(-1).tolist())
    )
    assert {label.name: label.probability for label in labels} == pytest.approx(expected, abs=1e-5)
    assert labels[0].probability == max(label.probability for label in labels)
    for arguments_, message in (
        ((None, "a", "{}"), "no image yet"),
        ((image, " \n", "{}"), "no labels yet"),
        ((image, "a\nb, c\na", "{}"), "more often: a"),
        ((image, "a", "a photo"), "needs {}"),
        ((image, "red\n" + "a " * 200, "{}"), "than the model reads: a a"),
    ):
        with pytest.raises(QueryError, match=message):
            classify_image(model, processor, *arguments_)
    (tmp_path / "text.png").write_text("a text")
    with pytest.raises(QueryError, match="not (an image|a picture)"):
        read_query_image(str(tmp_path / "text.png"))


def test_a_model_with_a_bias_gives_each_label_a_probability_of_its_own(model_and_processor):
    """SigLIP's: the sigmoid of the scaled similarity and the bias."""
    model, processor = copy.deepcopy(model_and_processor[0]), model_and_processor[1]
    names = ["red boat", "blue house", "green car"]
    image = make_scene(5, 0).draw()
    model.logit_scale.data.fill_(1.5)
    similarities = {label.name: label.similarity for label in classify(model, processor, image, names)}
    model.logit_bias = torch.nn.Parameter(torch.tensor(-0.7))
    found = {label.name: label for label in classify(model, processor, image, names)}
    for name in names:
        assert found[name].similarity == pytest.approx(similarities[name], abs=1e-6)
        expected = torch.sigmoid(torch.tensor(similarities[name]) * torch.tensor(1.5).exp() - 0.7).item()
        assert found[name].probability == pytest.approx(expected, abs=1e-5)
    assert sum(label.probability for label in found.values()) != pytest.approx(1, abs=0.01)


def classify(model, processor, image, names):
    return classify_image(model, processor, image, "\n".join(names), "a photo of a {}")
