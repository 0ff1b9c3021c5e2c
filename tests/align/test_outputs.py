"""What the card of an aligned model says, and what is checked of a saved one."""

import copy
import dataclasses

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from modeling_lotlip.align.arguments import AlignArguments
from modeling_lotlip.align.outputs import check_saved, write_card
from modeling_lotlip.align.towers import join_towers, make_processor
from modeling_lotlip.hub import EVAL_RESULTS_FILE


@pytest.fixture
def names(text_folder, vision_folder):
    return {"text_model_name_or_path": text_folder, "vision_model_name_or_path": vision_folder}


def test_the_card_has_the_license_of_each_tower_or_says_that_it_is_not_known(text_tower, image_tower, tmp_path):
    towers = (
        dataclasses.replace(text_tower, name="someone/text-tower", license="apache-2.0"),
        dataclasses.replace(image_tower, name="someone/image-tower", license=None),
    )
    names = {"text_model_name_or_path": towers[0].name, "vision_model_name_or_path": towers[1].name}
    write_card(tmp_path, AlignArguments(output_dir=tmp_path, **names), towers, settings={}, results={})
    lines = (tmp_path / "README.md").read_text(encoding="utf-8").splitlines()
    assert "| texts | someone/text-tower | apache-2.0 |" in lines
    assert "| images | someone/image-tower | not known |" in lines


def test_results_on_a_dataset_of_the_hub_are_for_the_hub(names, text_tower, image_tower, tmp_path):
    names |= {"dataset_name": "org/photos", "eval_split": "validation", "max_eval_samples": 8}
    args = AlignArguments(output_dir=tmp_path, **names)
    results = {"long_t2i_recall@1": 25.0, "long_num_images": 8}
    write_card(tmp_path, args, (text_tower, image_tower), settings={}, results=results)
    written = yaml.safe_load((tmp_path / EVAL_RESULTS_FILE).read_text(encoding="utf-8"))
    entries = parse_eval_result_entries(written)
    assert {entry.task_id: entry.value for entry in entries} == {"long_t2i_recall@1": 25.0}
    assert entries[0].dataset_id == "org/photos"
    assert "split validation (at most the first 8 rows)" in entries[0].notes
    assert "model-index" not in ModelCard.load(tmp_path / "README.md").content


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("tokenizer", "The tokenizer of .* is another one after it was saved"),
        ("image processor", "The image processor of .* is another one after it was saved"),
        ("text model", "does not compute what .* compute"),
        ("image model", "does not compute what .* compute"),
    ],
)
def test_a_model_that_was_saved_otherwise_is_none(text_tower, image_tower, tmp_path, changed, message):
    model = join_towers(text_tower, image_tower, 64, 128)
    make_processor(text_tower, image_tower).save_pretrained(tmp_path)
    check_saved(tmp_path, model, (text_tower, image_tower))
    if changed == "tokenizer":
        text_tower.tokenizer.add_tokens(["boat", "pier"])
    elif changed == "image processor":
        image_processor = copy.deepcopy(image_tower.image_processor)
        image_tower = dataclasses.replace(image_tower, image_processor=image_processor)
        image_processor.image_mean = [0.1, 0.2, 0.3]
    else:
        tower = text_tower if changed == "text model" else image_tower
        tower.model = copy.deepcopy(tower.model)
        with torch.no_grad():
            for parameter in tower.model.parameters():
                parameter.normal_()
    with pytest.raises(ValueError, match=message):
        check_saved(tmp_path, model, (text_tower, image_tower))
