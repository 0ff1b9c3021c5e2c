"""What the card of an aligned model says, and how a model takes the place of an earlier one."""

import dataclasses

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from modeling_lotlip.align.arguments import AlignArguments
from modeling_lotlip.align.outputs import replace_model, write_card
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
    names |= {"dataset_name": "org/photos", "eval_split": "validation"}
    args = AlignArguments(output_dir=tmp_path, **names)
    results = {"long_t2i_recall@1": 25.0, "long_num_images": 8}
    write_card(tmp_path, args, (text_tower, image_tower), settings={}, results=results)
    written = yaml.safe_load((tmp_path / EVAL_RESULTS_FILE).read_text(encoding="utf-8"))
    entries = parse_eval_result_entries(written)
    assert {entry.task_id: entry.value for entry in entries} == {"long_t2i_recall@1": 25.0}
    assert entries[0].dataset_id == "org/photos"
    assert "split validation" in entries[0].notes
    assert "model-index" not in ModelCard.load(tmp_path / "README.md").content


def test_files_of_an_earlier_model_go_and_those_of_others_stay(tmp_path):
    new = tmp_path / "new"
    folder = tmp_path / "model"
    for name in ("config.json", "vocab.txt", EVAL_RESULTS_FILE, "notes.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    new.mkdir()
    (new / "config.json").write_text('{"new": true}')
    replace_model(new, folder)
    names = sorted(file.name for file in folder.rglob("*") if file.is_file())
    assert names == ["config.json", "notes.md"]
    assert (folder / "config.json").read_text() == '{"new": true}'
