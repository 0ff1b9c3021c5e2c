"""
Make the folder of a released checkpoint for its own repository on the Hub, as transformers loads it out of its tree:
`config.json`, the processor's files, and `model.safetensors` with the names of the original.

    hf download weiwu-ww/LoTLIP-ViT-B-16-100M model.pt --local-dir LoTLIP-ViT-B-16-100M
    python -m tests.upstream.hub_folder --checkpoint_path LoTLIP-ViT-B-16-100M/model.pt --output_dir LoTLIP-ViT-B-16
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.image_utils import load_image

from modeling_lotlip import LotlipConfig, LotlipModel, LotlipProcessor
from modeling_lotlip.convert_lotlip_to_hf import DEFAULT_TOKENIZER, IMAGE_HEAD, convert_checkpoint, load_checkpoint
from tests.upstream import modular_lotlip


IMAGE = "https://huggingface.co/datasets/hf-internal-testing/fixtures-coco/resolve/main/val2017/000000039769.jpg"
# Those of the test of the released weights in `library_modeling_tests.py`
TEXTS = [
    "a photo of a dog",
    "two cats on a sofa",
    "Two cats lie on a pink blanket. A remote control is beside each of them. The one on the left is small.",
]


def make_hub_folder(
    checkpoint_path: str | Path,
    output_dir: str | Path,
    config_path: str | Path | None = None,
    tokenizer_path: str = DEFAULT_TOKENIZER,
):
    """
    Makes the folder. If anything fails, there is none.

    Args:
        checkpoint_path (`str` or `Path`):
            The original checkpoint.
        output_dir (`str` or `Path`):
            The folder; it must not exist.
        config_path (`str` or `Path`, *optional*):
            Its `open_clip_config.json`.
        tokenizer_path (`str`, *optional*, defaults to `"google-bert/bert-base-uncased"`):
            Folder or Hub id with BERT's `vocab.txt` or `tokenizer.json`.

    Raises:
        `FileExistsError`: if the folder exists.
        `ValueError`: if the checkpoint is not one of LoTLIP, or has an image projection, whose name the library's
        list does not have: no released checkpoint has one.
    """
    output_dir = Path(output_dir).absolute()
    if output_dir.exists():
        raise FileExistsError(f"`{output_dir}` exists. Give another `--output_dir`.")
    weights = {name: tensor.contiguous() for name, tensor in load_checkpoint(checkpoint_path).items()}
    if IMAGE_HEAD in weights:
        raise ValueError(
            f"`{checkpoint_path}` has an image projection, `{IMAGE_HEAD}`, as no released checkpoint has."
        )
    with tempfile.TemporaryDirectory(dir=output_dir.parent) as temporary_dir:
        converted = convert_checkpoint(checkpoint_path, Path(temporary_dir) / "ours", config_path, tokenizer_path)
        folder = Path(temporary_dir) / "theirs"
        folder.mkdir()

        config = LotlipConfig.from_pretrained(converted)
        fields = {name: getattr(config, name) for name in ("projection_dim", "logit_scale_init_value")}
        for part in ("text_config", "vision_config"):
            names = set(getattr(modular_lotlip.LotlipConfig(), part).to_dict()) - {"model_type"}
            fields[part] = {name: value for name, value in getattr(config, part).to_dict().items() if name in names}
        modular_lotlip.LotlipConfig(**fields, architectures=["LotlipModel"], dtype="float32").save_pretrained(folder)

        processor = LotlipProcessor.from_pretrained(converted)
        tokenizer, images = processor.tokenizer, processor.image_processor
        modular_lotlip.LotlipProcessor(
            tokenizer=modular_lotlip.LotlipTokenizer(
                vocab=tokenizer.get_vocab(),
                do_lower_case=tokenizer.do_lower_case,
                model_max_length=tokenizer.model_max_length,
            ),
            image_processor=modular_lotlip.LotlipImageProcessor(
                size=dict(images.size), crop_size=dict(images.crop_size)
            ),
        ).save_pretrained(folder)

        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        os.replace(folder, output_dir)


def compute_numbers(checkpoint_dir: str | Path, image: str = IMAGE) -> dict[str, list[float]]:
    """
    The first numbers of outputs of this package with a checkpoint, for the test of it in transformers' tree.

    Args:
        checkpoint_dir (`str` or `Path`):
            A folder (or name) that [`LotlipModel`] loads: of the original's layout, or converted.
        image (`str`, *optional*):
            The path or URL of the image; by default that of the test.

    Returns:
        `dict[str, list[float]]`: at most five numbers of `logits_per_image`, `text_embeds` and `image_embeds`.
    """
    model = LotlipModel.from_pretrained(checkpoint_dir).eval()
    processor = LotlipProcessor.from_pretrained(checkpoint_dir)
    with torch.inference_mode():
        outputs = model(**processor(text=TEXTS, images=load_image(image), return_tensors="pt"))
    names = ("logits_per_image", "text_embeds", "image_embeds")
    return {name: [round(number, 5) for number in outputs[name][0, :5].tolist()] for name in names}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint_path", type=Path, required=True, help="The original checkpoint.")
    parser.add_argument("--output_dir", type=Path, required=True, help="The folder to write; it must not exist.")
    parser.add_argument("--config_path", type=Path, help="The checkpoint's open_clip_config.json.")
    parser.add_argument(
        "--tokenizer_path",
        default=DEFAULT_TOKENIZER,
        help="Folder or Hub id with BERT's vocab.txt or tokenizer.json. Default: %(default)s.",
    )
    args = parser.parse_args()
    try:
        make_hub_folder(args.checkpoint_path, args.output_dir, args.config_path, args.tokenizer_path)
    except (OSError, ValueError) as error:
        sys.exit(f"Nothing is written: {error}")
    print(f"Wrote {args.output_dir}")


if __name__ == "__main__":
    main()
