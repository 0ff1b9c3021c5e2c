"""What the card of an aligned model says of its towers."""

import dataclasses

from modeling_lotlip.align.arguments import AlignArguments
from modeling_lotlip.align.outputs import write_card


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
