"""
Writes what the checkpoints compute into the integration tests, `EXPECTED` in `library_modeling_tests.py`: once, when
they are on the Hub as safetensors.

    python -m tests.upstream.expected_values NAME/LoTLIP-ViT-B-16-100M NAME/LoTLIP-ViT-B-32-100M

Then `python -m tests.upstream.lay_out --output_dir TRANSFORMERS` copies the tests, and there
`RUN_SLOW=1 pytest tests/models/lotlip -k Integration` runs them.
"""

import argparse
import ast
import re
from pathlib import Path

import torch
from PIL import Image
from transformers.image_utils import load_image

from modeling_lotlip import LotlipModel, LotlipProcessor


TESTS = Path(__file__).with_name("library_modeling_tests.py")
# the library's `COCO_CATS_IMAGE_URL`, which the tests read
IMAGE = "https://huggingface.co/datasets/hf-internal-testing/fixtures-coco/resolve/main/val2017/000000039769.jpg"


def read_constant(source: str, name: str) -> list | dict:
    """The value of a constant of a Python file."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise ValueError(f"The tests have no constant {name}.")


def measure(model_id: str, image: Image.Image, texts: list[str]) -> dict[str, list]:
    """What a checkpoint computes of an image and texts, on a CPU in float32, with six digits."""
    model = LotlipModel.from_pretrained(model_id, dtype=torch.float32).eval()
    inputs = LotlipProcessor.from_pretrained(model_id)(text=texts, images=image, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits_per_image
        features = model.get_image_features(inputs["pixel_values"]).pooler_output
        captions = model.get_text_features(inputs["input_ids"], inputs["attention_mask"], output_corner_tokens=True)
    measured = {
        "logits": logits,
        "image": features[0, :4],
        "text": captions.pooler_output[0, :4],
        "corners": captions.corner_pooler_output[0, :, :4],
    }
    return {name: round_numbers(tensor.tolist()) for name, tensor in measured.items()}


def round_numbers(values: list | float) -> list | float:
    """Rounds all numbers of nested lists to six digits behind the point."""
    if isinstance(values, list):
        return [round_numbers(value) for value in values]
    return round(values, 6)


def replace_expected(source: str, expected: dict[str, dict]) -> str:
    """The tests with other values in `EXPECTED`."""
    lines = ["EXPECTED = {"]
    for checkpoint, values in expected.items():
        lines.append(f'    "{checkpoint}": {{')
        for name, numbers in values.items():
            lines.append(f'        "{name}": {numbers},')
        lines.append("    },")
    block = "\n".join([*lines, "}", ""])
    replaced, count = re.subn(r"^EXPECTED = \{.*?^\}\n", lambda _: block, source, flags=re.DOTALL | re.MULTILINE)
    if count != 1:
        raise ValueError("The tests have no constant EXPECTED that ends with a brace on a line of its own.")
    return replaced


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", help="Names on the Hub, or folders.")
    parser.add_argument("--image", default=IMAGE, help="Another image than that of the library's tests.")
    parser.add_argument("--tests", type=Path, default=TESTS, help="The file with EXPECTED.")
    arguments = parser.parse_args(args)
    source = arguments.tests.read_text(encoding="utf-8")
    texts = read_constant(source, "TEXTS")
    image = load_image(arguments.image)
    expected = {checkpoint: measure(checkpoint, image, texts) for checkpoint in arguments.checkpoints}
    arguments.tests.write_text(replace_expected(source, expected), encoding="utf-8")
    print(f"Wrote the values of {len(expected)} checkpoints into {arguments.tests}; `make style` formats it.")


if __name__ == "__main__":
    main()
