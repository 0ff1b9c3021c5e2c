# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Trains the model of the README's image in minutes on a CPU, on a folder of captioned images and on drawn scenes. The
towers are frozen and run once; the pooler of the text tower and the two projections are trained.

    python -m tests.helpers.train_on_folder --data_dir lamps --vision_model_name_or_path facebook/dinov2-small \\
        --text_model_name_or_path sentence-transformers/all-MiniLM-L6-v2 --output_dir outputs/lamps

Scenes are there so that a text about something else is far from every image. It ends with the recall on the split
`test`, which is not trained on.
"""

import argparse
import random
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from torch.nn.functional import dropout, normalize
from tqdm import tqdm

from modeling_lotlip import LotlipModel, LotlipProcessor, LotlipTokenizer
from modeling_lotlip.convert_lotlip_to_hf import load_towers
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.metrics import retrieval_metrics
from modeling_lotlip.modeling_lotlip import image_text_contrastive_loss
from modeling_lotlip.sub_captions import join_sub_captions, split_sub_captions
from modeling_lotlip.training.models import make_image_processor


NUM_SCENES, NUM_SPANS, NUM_STEPS, BATCH_SIZE, DROPOUT, SCALE = 256, 5, 600, 192, 0.4, 20.0


def list_texts(row: dict) -> list[str]:
    """The long caption, and some of its sub-captions, alone or with the next one."""
    parts = split_sub_captions(row["long_captions"][0], "sentences")
    spans = [parts[start : start + length] for length in (1, 2) for start in range(len(parts) - length + 1)]
    drawn = random.sample(spans, min(NUM_SPANS, len(spans)))
    return [row["long_captions"][0], *map(join_sub_captions, drawn)]


class Towers:
    """The frozen towers of a model: what they give for its projections."""

    def __init__(self, model: LotlipModel, processor: LotlipProcessor):
        self.model, self.processor = model, processor

    @torch.no_grad()
    def read(self, texts: list[str]) -> torch.Tensor:
        """The last state of `[CLS]` of each text: (texts, hidden)."""
        states = []
        for start in tqdm(range(0, len(texts), 32), "texts"):
            tokens = self.processor(text=texts[start : start + 32], truncation=True, return_tensors="pt")
            states.append(self.model.text_model(**tokens).last_hidden_state[:, 0])
        return torch.cat(states)

    @torch.no_grad()
    def see(self, rows: Dataset) -> torch.Tensor:
        """The output of the image tower for each image: (images, hidden)."""
        outputs = []
        for start in tqdm(range(0, len(rows), 16), "images"):
            images = [image.convert("RGB") for image in rows[start : start + 16]["image"]]
            inputs = self.processor(images=images, return_tensors="pt")
            outputs.append(self.model.vision_model(**inputs).pooler_output)
        return torch.cat(outputs)


def train(model: LotlipModel, texts: list[torch.Tensor], images: torch.Tensor) -> None:
    """
    Trains pooler and projections by the contrastive loss.

    Args:
        model (`LotlipModel`):
            The model.
        texts (`list[torch.Tensor]`):
            Of each image the states of its texts (texts, hidden), of which a step draws one.
        images (`torch.Tensor` of shape `(num_images, hidden)`):
            The images, as the image tower gives them.
    """
    trained = [model.text_model.pooler, model.text_projection, model.visual_projection]
    torch.nn.init.eye_(model.visual_projection.weight)
    parameters = [parameter for module in trained for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, NUM_STEPS)
    scale = torch.tensor(SCALE)
    for _ in (bar := tqdm(range(NUM_STEPS), "steps")):
        rows = torch.randperm(len(images))[:BATCH_SIZE]
        states = torch.stack([random.choice(texts[row]) for row in rows.tolist()])
        text_embeds = model.text_projection(model.text_model.pooler(dropout(states, DROPOUT)))
        image_embeds = model.visual_projection(dropout(images[rows], DROPOUT))
        loss = image_text_contrastive_loss(normalize(image_embeds), normalize(text_embeds)[:, None], scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        bar.set_postfix_str(f"loss {loss:.2f}", refresh=False)
    model.logit_scale.data = scale.log()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="The folder, with the splits `train` and `test`.")
    parser.add_argument("--vision_model_name_or_path", required=True, help="DINOv2.")
    parser.add_argument("--text_model_name_or_path", required=True, help="A BERT for sentences.")
    parser.add_argument("--output_dir", type=Path, required=True, help="The folder of the model.")
    args = parser.parse_args()
    torch.manual_seed(0)
    random.seed(0)
    model = load_towers(
        args.vision_model_name_or_path, args.text_model_name_or_path, vision_image_size=224, vision_projection_dim=384
    ).eval()
    image_processor = make_image_processor((224, 224), args.vision_model_name_or_path)
    processor = LotlipProcessor(image_processor, LotlipTokenizer.from_pretrained(args.text_model_name_or_path))
    towers = Towers(model, processor)

    folder = load_dataset("imagefolder", data_dir=args.data_dir)
    scenes = load_scenes(NUM_SCENES, seed=11)
    listed = [list_texts(row) for rows in (folder["train"], scenes) for row in rows.remove_columns("image")]
    texts = sorted({text for row in listed for text in row}, key=len)
    states = dict(zip(texts, towers.read(texts)))
    images = torch.cat([towers.see(folder["train"]), towers.see(scenes)])
    train(model, [torch.stack([states[text] for text in row]) for row in listed], images)
    model.save_pretrained(args.output_dir)
    processor.save_pretrained(args.output_dir)

    with torch.no_grad():
        text_embeds = model.text_projection(
            model.text_model.pooler(towers.read(sum(folder["test"]["long_captions"], [])))
        )
        image_embeds = model.visual_projection(towers.see(folder["test"]))
    print(retrieval_metrics(image_embeds, text_embeds))


if __name__ == "__main__":
    main()
