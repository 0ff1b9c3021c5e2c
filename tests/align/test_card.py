"""What the card of an aligned model says."""

import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from modeling_lotlip.align.arguments import AlignArguments
from modeling_lotlip.align.card import write_card
from modeling_lotlip.hub import EVAL_RESULTS_FILE


@pytest.fixture
def names(text_folder, vision_folder):
    return {"text_model_name_or_path": text_folder, "vision_model_name_or_path": vision_folder}


def test_the_card_has_the_license_of_each_encoder_or_says_that_it_is_not_known(names, tmp_path):
    licensed = Path(shutil.copytree(names["text_model_name_or_path"], tmp_path / "text-tower"))
    licensed.joinpath("README.md").write_text("---\nlicense: apache-2.0\n---\n# A text tower\n")
    names |= {"text_model_name_or_path": str(licensed)}
    write_card(tmp_path, AlignArguments(output_dir=tmp_path, **names), settings={}, results={})
    lines = (tmp_path / "README.md").read_text(encoding="utf-8").splitlines()
    assert "| texts | text-tower | apache-2.0 |" in lines
    assert f"| images | {Path(names['vision_model_name_or_path']).name} | not known |" in lines


def test_results_on_a_dataset_of_the_hub_are_for_the_hub(names, tmp_path):
    names |= {"dataset_name": "org/photos", "eval_split": "validation", "max_eval_samples": 8}
    args = AlignArguments(output_dir=tmp_path, **names)
    results = {"long_t2i_recall@1": 25.0, "long_num_images": 8}
    write_card(tmp_path, args, settings={}, results=results)
    written = yaml.safe_load((tmp_path / EVAL_RESULTS_FILE).read_text(encoding="utf-8"))
    entries = parse_eval_result_entries(written)
    assert {entry.task_id: entry.value for entry in entries} == {"long_t2i_recall@1": 25.0}
    assert entries[0].dataset_id == "org/photos"
    assert "split validation (at most the first 8 rows)" in entries[0].notes
    assert "model-index" not in ModelCard.load(tmp_path / "README.md").content
