import logging
import warnings

import pytest
import torch
from PIL import Image
from transformers import pipeline

from modeling_lotlip import LotlipModel, LotlipProcessor, LotlipSigmoidConfig, LotlipSigmoidModel


@pytest.fixture
def no_warnings():
    """Fails the test if anything is warned of, by Python's warnings or in transformers' log."""
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logging.getLogger("transformers").addHandler(handler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    logging.getLogger("transformers").removeHandler(handler)
    assert not [record.getMessage() for record in records]


def test_zero_shot_pipeline_of_one_image_and_of_batches(model_dir, no_warnings):
    classifier = pipeline("zero-shot-image-classification", model=str(model_dir))
    images = [Image.new("RGB", (50 + 10 * index, 40), color) for index, color in enumerate(["red", "green", "blue"])]
    labels = ["red boat", "green car. the sea is blue", "house"]
    many = classifier(images, candidate_labels=labels, batch_size=2)
    by_template = classifier(images[1:], candidate_labels=labels, hypothesis_template="the {} of sand")

    model = LotlipModel.from_pretrained(model_dir).eval()
    processor = LotlipProcessor.from_pretrained(model_dir)
    for template, predictions in (("This is a photo of {}.", many), ("the {} of sand", by_template)):
        texts = [template.format(label) for label in labels]
        inputs = processor(text=texts, images=images[-len(predictions) :], return_tensors="pt")
        with torch.no_grad():
            expected = model(**inputs).logits_per_image.softmax(dim=-1)
        for prediction, row in zip(predictions, expected):
            scores = {answer["label"]: answer["score"] for answer in prediction}
            assert scores == pytest.approx(dict(zip(labels, row.tolist())), rel=1e-5)


def test_zero_shot_pipeline_of_a_model_with_a_sigmoid_loss(model_dir, tmp_path):
    """Its scores are probabilities of their own, no softmax over the labels."""
    config = LotlipModel.from_pretrained(model_dir).config
    fields = {name: getattr(config, name).to_dict() for name in ("text_config", "vision_config")}
    torch.manual_seed(0)
    LotlipSigmoidModel(LotlipSigmoidConfig(**fields, projection_dim=32)).save_pretrained(tmp_path)
    processor = LotlipProcessor.from_pretrained(model_dir)
    processor.save_pretrained(tmp_path)
    classifier = pipeline("zero-shot-image-classification", model=str(tmp_path))
    image = Image.new("RGB", (50, 40), "red")
    labels = ["red boat", "house"]

    answers = classifier(image, candidate_labels=labels, hypothesis_template="{}")

    inputs = processor(text=labels, images=image, return_tensors="pt")
    with torch.no_grad():
        expected = LotlipSigmoidModel.from_pretrained(tmp_path)(**inputs).logits_per_image[0].sigmoid()
    scores = {answer["label"]: answer["score"] for answer in answers}
    assert scores == pytest.approx(dict(zip(labels, expected.tolist())), rel=1e-4)
