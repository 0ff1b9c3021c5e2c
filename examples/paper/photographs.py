# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What long captions, corner tokens and objectives bring on pictures of your own, and how sure that is.

    python examples/paper/photographs.py --output_dir outputs/photographs --data_dirs LAMPS FLAGS \
        --vision_model_name_or_path DINOV2 --text_model_name_or_path MINILM

Each data directory is an `imagefolder` with a short and a long caption for each picture. All of them are trained on
together; each is searched apart. Without data directories it is the drawn scenes, and without a text tower a small one
is trained from scratch. The image tower is frozen, its features are computed once, and are centred on the mean of the
pictures that are trained on.

A setting is trained with several seeds, in this process, with the package's model, captions, batches and losses; what
`ablation.py` has no argument for is here: the weight of the long caption, rate and temperature of each objective,
which are chosen on the split `validation` (a tenth of `train` where there is none), and ways to make corner tokens
differ from `[CLS]`. Every difference that a table tells is with the interval of a paired bootstrap over the queries.

Each run leaves a file in `OUTPUT_DIR/runs`. Started again, the script trains what is missing, and several of it may
run at once. The tables are `results.md` and `results.json`.
"""

import json
import math
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from dataclasses import fields as dataclass_fields
from itertools import islice
from operator import mul
from pathlib import Path

import datasets
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from filelock import FileLock
from torch import nn
from torch.nn.functional import avg_pool2d, normalize, scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import get_scheduler
from transformers.masking_utils import create_bidirectional_mask

from modeling_lotlip import LotlipModel, LotlipProcessor, LotlipTextModel
from modeling_lotlip.arguments import Arguments, argument, exit_on_error, parse
from modeling_lotlip.benchmarking.frozen_towers import bootstrap
from modeling_lotlip.data.images import read_image, undecoded
from modeling_lotlip.data.loading import compute_fingerprint
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.embedding.batches import embed_texts, tokenize
from modeling_lotlip.embedding.token_wise import is_token_wise, pad_and_concatenate, rank_by_tokens
from modeling_lotlip.evaluation.sensitivity import LongTexts, measure_changes, measure_lengths
from modeling_lotlip.files import format_markdown, refuse_other_settings, write_json, write_text
from modeling_lotlip.metrics import RetrievalRanks, retrieval_ranks
from modeling_lotlip.modeling_lotlip import LotlipBaseModelOutputWithPooling, corner_mask_function
from modeling_lotlip.output_folder import atomic_write
from modeling_lotlip.sub_captions import join_sub_captions, split_sub_captions
from modeling_lotlip.training.arguments import TrainArguments
from modeling_lotlip.training.batches import BatchSampler
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.groups import BatchGroups
from modeling_lotlip.training.image_features import ImageFeatures, cache_image_features
from modeling_lotlip.training.loss import GlobalLoss, global_loss
from modeling_lotlip.training.models import build_model
from modeling_lotlip.training.objectives import OBJECTIVES
from modeling_lotlip.training.samples import CaptionedImages, SampleCollator
from modeling_lotlip.training.step import parameter_groups, update


# ---------------------------------------------------------------------------------------------------------------------
# Settings


@dataclass(frozen=True)
class Setting:
    """
    What a training differs in.

    Args:
        objective (`str`, *optional*, defaults to `"lotlip"`):
            A key of [`OBJECTIVES`].
        num_corner_tokens (`int`, *optional*, defaults to 0):
            Corner tokens.
        short_captions, num_long_captions, num_sub_captions, max_length, no_corner_attention_mask:
            As in [`TrainArguments`].
        long_weight (`int`, *optional*, defaults to 1):
            How often the slot of the long caption's `[CLS]` counts in the loss. With m corner tokens a long caption
            has m + 1 slots: without them it has the same weight if this is m + 1.
        corner_penalty (`float`, *optional*, defaults to 0.0):
            What the mean squared cosine between `[CLS]` and corners of a long caption counts in the loss.
        corner_start (`str`, *optional*, defaults to `"random"`):
            What corners are before training: `"random"`, as in the paper, or `"words"`, the vectors of words.
        corner_heads (`bool`, *optional*, defaults to `False`):
            Whether each corner has a pooler and a projection of its own.
        corner_reads (`str`, *optional*, defaults to `"all"`):
            What corner i of m is computed on: `"all"` of the long caption, or every m-th sub-caption (`"part"`).
        corner_sees (`str`, *optional*, defaults to `"all"`):
            What it is contrasted with: the image, or a crop of it, from top left to bottom right (`"crop"`).
        false_details (`str`, *optional*):
            A long caption with a false detail (`--hard_negatives 1`) is a negative of its own image (`"own"`) or of
            all images (`"all"`) in the softmax of images among texts, or alone against the true one (`"pair"`).
        num_similar (`int`, *optional*, defaults to 1):
            A batch is made of groups of so many images that are nearest neighbours.
        average_decay (`float`, *optional*, defaults to 0.0):
            The weights are the exponential moving average of those of all steps, with this decay.
        layer_decay (`float`, *optional*, defaults to 1.0):
            What the rate of a text layer is multiplied by for the one below it.
        num_teachers (`int`, *optional*, defaults to 0):
            Models, of other seeds, whose similarities of images and texts are learned too, in the mean.
        best_of (`int`, *optional*, defaults to 0):
            The weights are those, after every so many steps, that find most on the validation split.
        learning_rate, logit_scale (`float`, *optional*):
            The rate, and the inverse temperature at the start. Default: those that the validation split chose.
    """

    objective: str = "lotlip"
    num_corner_tokens: int = 0
    short_captions: str | None = None
    num_long_captions: int | None = None
    num_sub_captions: int | None = None
    max_length: int | None = None
    no_corner_attention_mask: bool = False
    long_weight: int = 1
    corner_penalty: float = 0.0
    corner_start: str = "random"
    corner_heads: bool = False
    corner_reads: str = "all"
    corner_sees: str = "all"
    false_details: str | None = None
    num_similar: int = 1
    average_decay: float = 0.0
    layer_decay: float = 1.0
    num_teachers: int = 0
    best_of: int = 0
    learning_rate: float | None = None
    logit_scale: float | None = None

    @property
    def name(self) -> str:
        """
        The fields that are not the default, in the name of its files.

        ```python
        >>> from examples.paper.photographs import Setting

        >>> Setting(num_corner_tokens=2, long_weight=3).name
        'num_corner_tokens=2,long_weight=3'
        ```"""
        default = asdict(Setting())
        fields = {name: value for name, value in asdict(self).items() if value != default[name]}
        return ",".join(f"{name}={value}" for name, value in fields.items()) or "default"


SHORT = Setting(num_long_captions=0)
LONG = Setting(short_captions="none")
BOTH = Setting()
BOTH_THRICE = replace(BOTH, long_weight=3)
LOTLIP = Setting(num_corner_tokens=2)
MAX_CORNERS = 4


@dataclass(frozen=True)
class Group:
    """
    Settings that are compared.

    Args:
        question (`str`):
            The title of the table.
        settings (`dict[str, Setting]`):
            The settings by name.
        differences (`list[tuple[str, str]]`):
            Pairs of names: the gain of the first one over the second is told.
    """

    question: str
    settings: dict[str, Setting]
    differences: list[tuple[str, str]]


GROUPS = {
    "captions": Group(
        "Captions trained on",
        {
            "short": SHORT,
            "long": LONG,
            "both": BOTH,
            "both, long thrice": BOTH_THRICE,
            "both, 2 corners": LOTLIP,
        },
        [
            ("both", "short"),
            ("both", "long"),
            ("both, long thrice", "both"),
            ("both, 2 corners", "both"),
            ("both, 2 corners", "both, long thrice"),
        ],
    ),
    "corners": Group(
        "Corner tokens, against a control in which the long caption has the same weight without them",
        {"0": BOTH}
        | {f"{number}": replace(LOTLIP, num_corner_tokens=number) for number in range(1, MAX_CORNERS + 1)}
        | {f"0, long x{number + 1}": replace(BOTH, long_weight=number + 1) for number in range(1, MAX_CORNERS + 1)}
        | {"2, no mask": replace(LOTLIP, no_corner_attention_mask=True)},
        [(f"{number}", f"0, long x{number + 1}") for number in range(1, MAX_CORNERS + 1)]
        + [("2, no mask", "2"), ("2, no mask", "0, long x3")],
    ),
    "sub_captions": Group(
        "Sub-captions of a long caption",
        {"0": SHORT}
        | {f"{number}": replace(LOTLIP, num_sub_captions=number) for number in (1, 2, 3, 5)}
        | {"all": LOTLIP},
        [("all", "0"), ("all", "1"), ("all", "3")],
    ),
    "max_length": Group(
        "Tokens of a text",
        {f"{number}": replace(LOTLIP, max_length=number) for number in (16, 32, 64, 96)} | {"126": LOTLIP},
        [("126", "32"), ("126", "64")],
    ),
    "objectives": Group(
        "Objectives, each with a rate and a temperature of its own",
        {
            "CLIP": BOTH,  # whose loss is the same
            "SigLIP": Setting("siglip", num_long_captions=1),
            "FILIP": Setting("filip", num_long_captions=1),
            "LaCLIP": Setting("laclip"),
            "Long-CLIP": Setting("long_clip"),
            "DeBias-CLIP": Setting("debias"),
            "LoTLIP": LOTLIP,
        },
        [(name, "CLIP") for name in ("SigLIP", "FILIP", "LaCLIP", "Long-CLIP", "DeBias-CLIP", "LoTLIP")],
    ),
    "corners_apart": Group(
        "Ways to make corner tokens differ from [CLS]",
        {
            "no corners": BOTH_THRICE,
            "2 corners": LOTLIP,
            "penalty 0.1": replace(LOTLIP, corner_penalty=0.1),
            "penalty 1": replace(LOTLIP, corner_penalty=1.0),
            "parts": replace(LOTLIP, corner_reads="part"),
            "crops": replace(LOTLIP, corner_sees="crop"),
            "start as words": replace(LOTLIP, corner_start="words"),
            "own heads": replace(LOTLIP, corner_heads=True),
        },
        [
            (name, "no corners")
            for name in ("2 corners", "penalty 0.1", "penalty 1", "parts", "crops", "start as words", "own heads")
        ],
    ),
    "hard_negatives": Group(
        "Harder negatives",
        {"none": BOTH_THRICE}
        | {f"false detail, {kind}": replace(BOTH_THRICE, false_details=kind) for kind in ("own", "all", "pair")}
        | {f"groups of {number}": replace(BOTH_THRICE, num_similar=number) for number in (4, 16)},
        [
            (name, "none")
            for name in ("false detail, own", "false detail, all", "false detail, pair", "groups of 4", "groups of 16")
        ],
    ),
    "fine_tuning": Group(
        "Ways to fine-tune",
        {
            "none": BOTH_THRICE,
            "average 0.8": replace(BOTH_THRICE, average_decay=0.8),
            "average 0.9": replace(BOTH_THRICE, average_decay=0.9),
            "teachers": replace(BOTH_THRICE, num_teachers=4),
            "best of steps": replace(BOTH_THRICE, best_of=5),
            "layer decay 0.8": replace(BOTH_THRICE, layer_decay=0.8),
        },
        [(name, "none") for name in ("average 0.8", "average 0.9", "teachers", "best of steps", "layer decay 0.8")],
    ),
}

# The settings that are asked what of a long text they use
SENSITIVE = (SHORT, LONG, BOTH, BOTH_THRICE, LOTLIP, GROUPS["objectives"].settings["DeBias-CLIP"])
SENSITIVE += tuple(GROUPS["hard_negatives"].settings.values())
NUM_TOKENS = [8, 16, 32, 48, 64, 96, 126]

# What is tried of each objective, and the seed of these trainings, which counts for nothing else
RATES, SCALES, TUNING_SEED = (1e-4, 3e-4, 1e-3, 3e-3), (14.3, 40.0), 1000
METRICS = {
    "long_t2i": "long T2I",
    "long_i2t": "long I2T",
    "short_t2i": "short T2I",
    "short_i2t": "short I2T",
}


@dataclass
class PhotographsArguments(Arguments):
    """What is trained on what."""

    output_dir: Path = argument(help="Where features, runs and tables go.")
    data_dirs: list[str] = argument([], "Folders of captioned pictures. Default: the drawn scenes.")
    groups: list[str] = argument(list(GROUPS), "What is compared.", choices=tuple(GROUPS))
    leave_out: list[str] = argument([], "Settings of these groups, by name, that are not trained.")
    seeds: list[int] = argument([0, 1, 2, 3, 4], "The seeds of each setting.")
    vision_model_name_or_path: str = argument("facebook/dinov2-small", "The frozen image tower.")
    text_model_name_or_path: str | None = argument(None, "A BERT to train further. Default: a small one from scratch.")
    num_trained_text_layers: int | None = argument(
        None, "Train the last ones only; those below are frozen, and read each text once. Default: all.", least=1
    )
    image_size: int | None = argument(None, "The side of the crop in pixels. Default: that of the tower.", least=14)
    image_mean: list[float] | None = argument(None, "Of its pixels. Default: that of the tower's image processor.")
    image_std: list[float] | None = argument(None, "Likewise.")
    max_train_samples: int = argument(4096, "Drawn scenes to train on.", least=2)
    max_eval_samples: int = argument(256, "Drawn scenes to search.", least=2)
    max_train_steps: int = argument(30, "Steps of a training.", least=1)
    per_device_train_batch_size: int = argument(64, "Pictures in a step.", least=2)
    learning_rate: float | None = argument(None, "That of all settings. Default: each objective's own is looked for.")
    logit_scale: float | None = argument(None, "The inverse temperature at the start, likewise.")
    mixed_precision: str = argument("bf16", "What the text tower computes in.", choices=("no", "bf16", "fp16"))
    sensitivity: bool = argument(False, "Ask what of long texts the models use, too.")
    tables_only: bool = argument(False, "Train nothing; write the tables of what is there.")

    def __post_init__(self):
        super().__post_init__()
        self.output_dir = Path(self.output_dir)
        if (self.learning_rate is None) != (self.logit_scale is None):
            raise ValueError("--learning_rate and --logit_scale go together: give both, or none to look for them.")


# ---------------------------------------------------------------------------------------------------------------------
# Data


@dataclass
class Collection:
    """
    Pictures to search.

    Args:
        name (`str`):
            Of the collection.
        places (`list[int]`):
            Of its pictures, among all.
        captions (`dict[str, dict[str, list[int]]]`):
            For `short` and `long` captions each different text, with the places among `places` of its pictures.
    """

    name: str
    places: list[int]
    captions: dict[str, dict[str, list[int]]]


@dataclass
class Data:
    """All pictures and captions: those of `train` come first."""

    dataset: datasets.Dataset
    num_trained: int
    collections: dict[str, list[Collection]]  # of the splits `validation` and `test`


def load_folder(data_dir: str) -> dict[str, datasets.Dataset]:
    """
    The splits `train`, `validation` and `test` of an `imagefolder`; a tenth of `train` is `validation` where there is
    none.

    Raises:
        `ValueError`: if there is no split `train` or `test`, no column of captions, or a picture without captions.
    """
    splits = datasets.load_dataset("imagefolder", data_dir=data_dir)
    missing = {"train", "test"} - set(splits)
    if missing:
        raise ValueError(f"--data_dirs {data_dir} has no split {sorted(missing)[0]}, only {list(splits)}.")
    columns = splits["train"].column_names
    for column in ("caption", "long_captions"):
        if column not in columns:
            raise ValueError(
                f"--data_dirs {data_dir} has no column {column!r}, only {columns}: add it to each `metadata.jsonl`."
            )
    if "validation" not in splits:
        parts = splits["train"].train_test_split(test_size=0.1, seed=0)
        splits = {"train": parts["train"], "validation": parts["test"], "test": splits["test"]}
    rows = {}
    for name in ("train", "validation", "test"):
        split = undecoded(splits[name].select_columns(["image", "caption", "long_captions"]), "image")
        if isinstance(split.features["long_captions"], datasets.Value):
            split = split.map(lambda row: {"long_captions": [row["long_captions"]] if row["long_captions"] else []})
        num_bare = sum(not all(captions) for captions in zip(split["caption"], split["long_captions"]))
        if num_bare > 0:
            raise ValueError(
                f"--data_dirs {data_dir}: {num_bare} of {len(split)} pictures in split {name} have no short caption "
                "or no long one. Leave them out."
            )
        rows[name] = split
    return rows


def load_data(args: PhotographsArguments) -> Data:
    """
    Reads all folders, or draws the scenes.

    Raises:
        `ValueError`: if two folders have the same name, which their results go by, or one cannot be used.
    """
    if args.data_dirs:
        names = [Path(data_dir).resolve().name for data_dir in args.data_dirs]
        if len(set(names)) < len(names):
            raise ValueError(f"--data_dirs has folders of the same name, {names}: rename one.")
        folders = {name: load_folder(data_dir) for name, data_dir in zip(names, args.data_dirs)}
    else:
        sizes = {"train": args.max_train_samples, "validation": args.max_eval_samples, "test": args.max_eval_samples}
        scenes = {
            split: undecoded(load_scenes(size, seed=seed).remove_columns("label"), "image")
            for (split, size), seed in zip(sizes.items(), (0, 2, 1))
        }
        folders = {"scenes": scenes}
    trained = [splits["train"] for splits in folders.values()]
    parts, first = list(trained), sum(map(len, trained))
    collections = {"validation": [], "test": []}
    for split, of_split in collections.items():
        for name, splits in folders.items():
            rows = splits[split]
            parts.append(rows)
            of_split.append(Collection(name, list(range(first, first + len(rows))), group_captions(rows)))
            first += len(rows)
    return Data(datasets.concatenate_datasets(parts), sum(map(len, trained)), collections)


def group_captions(rows: datasets.Dataset) -> dict[str, dict[str, list[int]]]:
    """For short and long captions each different text with the rows that have it."""
    captions = {"short": {}, "long": {}}
    texts = rows.select_columns(["caption", "long_captions"])
    for place, row in enumerate(texts):
        long = join_sub_captions(split_sub_captions(row["long_captions"][0]))
        for kind, text in (("short", row["caption"]), ("long", long)):
            captions[kind].setdefault(text, []).append(place)
    return captions


def load_crop(dataset: datasets.Dataset, index: int, view: int, num_views: int):
    """A crop of seven tenths of each side of a picture; the first one is at the top left, the last at bottom right."""
    image = read_image(dataset[index]["image"])
    left, top = (0.3 * length * view / max(1, num_views - 1) for length in image.size)
    return image.crop((left, top, left + 0.7 * image.width, top + 0.7 * image.height))


@dataclass
class Features:
    """
    What the image tower made of all pictures, less the mean of those that are trained on.

    Args:
        whole (`torch.Tensor` of shape `(pictures, dim)`):
            The class token.
        crops (`torch.Tensor` of shape `(pictures, crops, dim)`, *optional*):
            That of each crop.
        tokens (`torch.Tensor` of shape `(pictures, tokens, dim)`, *optional*):
            The class token, and means of two by two patches.
        states (`dict[bytes, torch.Tensor]`):
            What frozen layers of the text tower made of texts: see [`UpperTextModel`].
        taught (`dict[Setting, torch.Tensor]`):
            What teachers made of the short and long captions (pictures, 2, dim) of pictures that are trained on.
    """

    whole: torch.Tensor
    crops: torch.Tensor | None = None
    tokens: torch.Tensor | None = None
    states: dict[bytes, torch.Tensor] = field(default_factory=dict)
    taught: dict[Setting, torch.Tensor] = field(default_factory=dict)


def compute_features(args: PhotographsArguments, data: Data, settings: list[Setting], accelerator: Accelerator):
    """Runs the image tower, unless its output is there: see [`cache_image_features`]."""
    first = data.dataset.select(range(min(8, len(data.dataset))))
    model, processor = build_model(make_train_args(args, BOTH), first, make_reader(data))
    options = {
        "vision_model": model.vision_model,
        "image_processor": processor.image_processor,
        "num_images": len(data.dataset),
        "folder": args.output_dir / "image_features",
        "accelerator": accelerator,
        "batch_size": 16,
    }
    fingerprint = compute_fingerprint(data.dataset, "image")

    def cache(load_image, num_views: int, key: str, output: str) -> torch.Tensor:
        options.update(num_views=num_views, data_key=(fingerprint, key), output=output)
        found: ImageFeatures = cache_image_features(load_image=load_image, **options)
        features = torch.from_numpy(found.features[:].copy())
        return features - features[: data.num_trained].mean(dim=(0, 1))

    def load_image(index: int, view: int):
        return read_image(data.dataset[index]["image"])

    features = Features(cache(load_image, 1, "whole", "pooler_output")[:, 0])
    if find_states(args).exists():
        features.states = torch.load(find_states(args))
    if any(setting.corner_sees == "crop" for setting in settings):
        num_crops = max(setting.num_corner_tokens for setting in settings if setting.corner_sees == "crop")
        features.crops = cache(
            lambda index, view: load_crop(data.dataset, index, view, num_crops), num_crops, "crops", "pooler_output"
        )
    if any(OBJECTIVES[setting.objective].is_token_wise for setting in settings):
        tokens = cache(load_image, 1, "whole", "last_hidden_state")[:, 0]
        side = math.isqrt(tokens.shape[1] - 1)
        patches = tokens[:, -side * side :].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        features.tokens = torch.cat([tokens[:, :1], avg_pool2d(patches, 2).flatten(2).mT], dim=1)
    return features


# ---------------------------------------------------------------------------------------------------------------------
# Training


def make_reader(data: Data) -> RowReader:
    """Reads the captions of all rows."""
    return RowReader(data.dataset.column_names, TrainArguments(output_dir="."))


def make_train_args(args: PhotographsArguments, setting: Setting, seed: int = 0) -> TrainArguments:
    """The arguments of the package's training."""
    names = {field.name for field in dataclass_fields(TrainArguments)}
    fields = {name: value for name, value in asdict(setting).items() if name in names}
    if setting.corner_reads == "part":  # the whole caption for [CLS], and a part for each corner
        fields["num_long_captions"] = 1 + setting.num_corner_tokens
    fields["hard_negatives"] = int(setting.false_details is not None)
    return TrainArguments(
        output_dir=args.output_dir,
        dataset_name="imagefolder" if args.data_dirs else None,
        vision_model_name_or_path=args.vision_model_name_or_path,
        text_model_name_or_path=args.text_model_name_or_path,
        image_size=args.image_size,
        image_mean=args.image_mean,
        image_std=args.image_std,
        freeze_vision_model=True,
        seed=seed,
        **fields,
    )


class PartsForCorners(CaptionedImages):
    """Of each long caption the whole, and for each corner token every so many-th of its sub-captions."""

    def draw_captions(self, index: int, epoch: int, row: dict) -> tuple[str, list[str], str | None]:
        short, (whole, *others), unmatched = super().draw_captions(index, epoch, row)
        sub_captions = self.reader.sub_captions(whole)
        parts = [join_sub_captions(sub_captions[place :: len(others)]) for place in range(len(others))]
        return short, [whole, *parts], unmatched


class FalseDetails(CaptionedImages):
    """Of each long caption three copies with a false detail, the same for every seed, so that each is read once."""

    def draw_hard_negatives(self, row: dict, long_captions: list[str], generator: random.Random) -> list[str]:
        same = random.Random(f"{long_captions} {generator.randrange(3)}")
        return super().draw_hard_negatives(row, long_captions, same)


class OwnHeadsModel(LotlipModel):
    """Each corner token has a pooler and a projection of its own, in the beginning those of `[CLS]`."""

    def __init__(self, config):
        super().__init__(config)
        text = config.text_config
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Linear(text.hidden_size, text.hidden_size),
                nn.Tanh(),
                nn.Linear(text.hidden_size, config.projection_dim, bias=False),
            )
            for _ in range(text.num_corner_tokens)
        )

    @classmethod
    def of(cls, model: LotlipModel) -> "OwnHeadsModel":
        own = cls(model.config)
        own.load_state_dict(model.state_dict(), strict=False)
        for head in own.heads:
            head[0].load_state_dict(model.text_model.pooler.dense.state_dict())
            head[2].load_state_dict(model.text_projection.state_dict())
        own.vision_model.requires_grad_(False)
        return own

    def get_text_features(self, *args, **kwargs):
        outputs = super().get_text_features(*args, **kwargs)
        if outputs.corner_pooler_output is not None:
            corners = outputs.corner_hidden_states.unbind(dim=1)
            outputs.corner_pooler_output = torch.stack([head(own) for head, own in zip(self.heads, corners)], dim=1)
        return outputs


def run_layer_for(layer: nn.Module, hidden_states: torch.Tensor, mask: torch.Tensor | None, number: int):
    """What a layer of the text tower makes of the first tokens, without computing the others: (texts, number, dim)"""
    attention, first = layer.self_attn, hidden_states[:, :number]
    queries, keys, values = (
        projection(states).unflatten(2, (-1, attention.head_dim)).transpose(1, 2)
        for projection, states in (
            (attention.q_proj, first),
            (attention.k_proj, hidden_states),
            (attention.v_proj, hidden_states),
        )
    )
    mask = mask[:, :, :number] if mask is not None else None
    dropout = attention.dropout if layer.training else 0.0
    read = scaled_dot_product_attention(queries, keys, values, mask, dropout, scale=attention.scaling)
    read = attention.out_proj(read.transpose(1, 2).flatten(2))
    first = layer.layer_norm1(first + layer.dropout(read))
    return layer.layer_norm2(first + layer.dropout(layer.mlp(first)))


class UpperTextModel(LotlipTextModel):
    """
    A text tower of which the lower layers are frozen. They read a text as BERT does, once, and what they make of it is
    kept in `states`; corner tokens join at the first layer that is trained.
    """

    @classmethod
    def of(cls, model: LotlipModel, num_trained: int, states: dict[bytes, torch.Tensor]) -> "UpperTextModel":
        text_model = model.text_model
        own = cls(text_model.config)
        own.load_state_dict(text_model.state_dict())
        own.is_token_wise = is_token_wise(model)
        own.num_frozen, own.states = max(0, len(own.layers) - num_trained), states
        for module in (own.embeddings, own.layers[: own.num_frozen]):
            module.requires_grad_(False)
        if own.embeddings.corner_tokens is not None:
            own.embeddings.corner_tokens.requires_grad_(text_model.embeddings.corner_tokens.requires_grad)
        return own

    @torch.no_grad()
    def read(self, texts: list[torch.Tensor]) -> None:
        """Runs the frozen layers on the texts (length,) that they have not read."""
        missing = {text.numpy().tobytes(): text for text in texts}
        missing = [item for item in missing.items() if item[0] not in self.states]
        missing.sort(key=lambda item: len(item[1]))
        is_training = self.training
        self.eval()
        for start in range(0, len(missing), 32):
            keys, rows = zip(*missing[start : start + 32])
            input_ids = pad_sequence(rows, batch_first=True).to(self.device)
            mask = create_bidirectional_mask(
                config=self.config, inputs_embeds=input_ids[..., None].float(), attention_mask=(input_ids != 0).long()
            )
            positions = torch.arange(input_ids.shape[1], device=self.device)[None]
            hidden_states = self.embeddings(input_ids=input_ids, position_ids=positions)
            for layer in self.layers[: self.num_frozen]:
                hidden_states = layer(hidden_states, mask)
            for key, row, text in zip(keys, hidden_states.cpu(), rows):
                self.states[key] = row[: len(text)].clone()
        self.train(is_training)

    def forward(self, input_ids, attention_mask=None, output_corner_tokens: bool = False, **kwargs):
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        texts = [row[:length] for row, length in zip(input_ids.cpu(), attention_mask.sum(dim=1).tolist())]
        self.read(texts)
        states = [self.states[text.numpy().tobytes()].float() for text in texts]
        hidden_states = pad_sequence(states, batch_first=True).to(self.device)
        length, number = hidden_states.shape[1], self.config.num_corner_tokens
        attention_mask = attention_mask[:, :length]
        with_corners = number > 0 and (output_corner_tokens or not self.config.corner_attention_mask)
        if with_corners:
            corners = self.embeddings.dropout(self.embeddings.layer_norm(self.embeddings.corner_tokens))
            corners = corners.expand(len(hidden_states), -1, -1)
            hidden_states = torch.cat([hidden_states[:, :1], corners, hidden_states[:, 1:]], dim=1)
            ones = attention_mask.new_ones(len(hidden_states), number)
            attention_mask = torch.cat([attention_mask[:, :1], ones, attention_mask[:, 1:]], dim=1)
        hides_corners = with_corners and self.config.corner_attention_mask
        mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=attention_mask,
            and_mask_function=corner_mask_function(number) if hides_corners else None,
        )
        for layer in self.layers[self.num_frozen : -1]:
            hidden_states = layer(hidden_states, mask)
        if self.is_token_wise:
            hidden_states = self.layers[-1](hidden_states, mask)
        else:
            hidden_states = run_layer_for(self.layers[-1], hidden_states, mask, 1 + number * with_corners)
        outputs = LotlipBaseModelOutputWithPooling(pooler_output=self.pooler(hidden_states[:, 0]))
        if with_corners:
            outputs.corner_hidden_states = hidden_states[:, 1 : number + 1]
            outputs.corner_pooler_output = self.pooler(outputs.corner_hidden_states)
        if self.is_token_wise:
            padding = input_ids.shape[1] - length
            outputs.last_hidden_state = nn.functional.pad(hidden_states, (0, 0, 0, padding))
        return outputs


def make_model(args: PhotographsArguments, setting: Setting, data: Data, seed: int, states: dict[bytes, torch.Tensor]):
    """The model before training, and its processor."""
    train_args = make_train_args(args, setting, seed)
    model, processor = build_model(train_args, data.dataset.select(range(data.num_trained)), make_reader(data))
    with torch.no_grad():
        model.logit_scale.fill_(math.log(setting.logit_scale))
        if model.logit_bias is not None:
            model.logit_bias.fill_(-setting.logit_scale)  # that of SigLIP, whose scale begins with 10
        if setting.corner_start == "words":
            embeddings = model.text_model.embeddings
            words = torch.randperm(model.config.text_config.vocab_size)[: setting.num_corner_tokens]
            embeddings.corner_tokens.copy_(embeddings.word_embeddings.weight[words])
    if setting.corner_heads:
        model = OwnHeadsModel.of(model)
    if args.num_trained_text_layers is not None:
        model.text_model = UpperTextModel.of(model, args.num_trained_text_layers, states)
    return model, processor


def choose_slots(text_embeds: torch.Tensor, setting: Setting) -> torch.Tensor:
    """
    The slots of the loss: the short caption, `[CLS]` of the long one as often as it counts, and its corner tokens.

    Args:
        text_embeds (`torch.Tensor` of shape `(rows, slots, ..., dim)`):
            Those that the model gives: for each of several long captions `[CLS]` and all corners.
        setting (`Setting`):
            The setting.

    Example:

    ```python
    >>> import torch
    >>> from examples.paper.photographs import Setting, choose_slots

    >>> choose_slots(torch.arange(2.0).reshape(1, 2, 1), Setting(long_weight=3)).flatten().tolist()
    [0.0, 1.0, 1.0, 1.0]
    ```"""
    number = setting.num_corner_tokens
    if setting.corner_reads == "part":  # of the i-th part only the i-th corner
        own = [(1 + place) * (number + 1) + 1 + place for place in range(number)]
        text_embeds = text_embeds[:, [0, 1, *(1 + place for place in own)]]
    if setting.long_weight == 1:
        return text_embeds
    return torch.cat([text_embeds[:, :1], *[text_embeds[:, 1:2]] * setting.long_weight, text_embeds[:, 2:]], dim=1)


def measure_likeness(long_embeds: torch.Tensor) -> torch.Tensor:
    """The squared cosines (rows,) between the slots of a long caption (rows, slots, dim), in the mean over pairs."""
    products = long_embeds @ long_embeds.mT
    rows, columns = torch.triu_indices(*products.shape[1:], offset=1)
    return products[:, rows, columns].square().mean(dim=1)


def contrast_false(
    image_embeds: torch.Tensor, slots: torch.Tensor, false_slots: torch.Tensor, scale: torch.Tensor, kind: str
) -> torch.Tensor:
    """
    What texts (rows, slots, dim) of which a detail is false (rows, slots, dim) add to the loss of each slot (slots,),
    as negatives of their own image or of all of them. An absent one is zero, and adds nothing.
    """
    logits = torch.einsum("id,jsd->sij", scale * image_embeds.float(), slots.float())
    others = torch.einsum("id,jsd->sij", scale * image_embeds.float(), false_slots.float())
    is_absent = (false_slots == 0).all(dim=-1).T[:, None]
    others = others.masked_fill(is_absent, -torch.inf)
    reference = logits.diagonal(dim1=1, dim2=2) if kind == "pair" else logits.logsumexp(dim=2)
    added = others.logsumexp(dim=2) if kind == "all" else others.diagonal(dim1=1, dim2=2)
    return 0.5 * nn.functional.softplus(added - reference).mean(dim=1)


def compute_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    crops: torch.Tensor | None,
    model: LotlipModel,
    setting: Setting,
    batch: dict[str, torch.Tensor],
    accelerator: Accelerator,
    taught: torch.Tensor | None = None,
) -> GlobalLoss:
    """The loss of a batch: that of the objective, with the weights and the additions of the setting."""
    options = {"batch": batch, "objective": OBJECTIVES[setting.objective], "accelerator": accelerator}
    scalars = ContrastiveModel(model).scalars
    if setting.false_details is not None:
        text_embeds, false_embeds = text_embeds[:, :2], text_embeds[:, 2:]
    slots = choose_slots(text_embeds, setting)
    if setting.corner_sees == "crop":
        shared = global_loss(image_embeds, slots[:, :2], **scalars, **options)
        options["keep_duplicate_negatives"] = True  # no slot is one of short captions
        of_crops = [
            global_loss(crop, slots[:, 2 + place, None], **scalars, **options).loss
            for place, crop in enumerate(normalize(crops, dim=-1).unbind(dim=1))
        ]
        num_shared = int(shared.slot_losses.isfinite().sum())
        total = num_shared * shared.loss + sum(of_crops)
        return shared._replace(loss=total / (num_shared + len(of_crops)))
    loss = global_loss(image_embeds, slots, **scalars, **options)
    if setting.false_details is not None:
        scale = model.logit_scale.exp()
        added = contrast_false(image_embeds, text_embeds[:, 1:], false_embeds, scale, setting.false_details).sum()
        loss = loss._replace(loss=loss.loss + added * setting.long_weight / slots.shape[1])
    if setting.num_teachers > 0:
        logits, taught = (
            model.logit_scale.exp() * torch.einsum("id,jsd->sij", image_embeds.float(), texts.float())
            for texts in (text_embeds, taught)
        )
        loss = loss._replace(loss=0.5 * loss.loss + 0.5 * mimic(logits, taught.detach()))
    if setting.corner_penalty > 0:
        loss = loss._replace(loss=loss.loss + setting.corner_penalty * measure_likeness(slots[:, 1:]).mean())
    return loss


def mimic(logits: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
    """The cross entropy of similarities (slots, images, texts) with those of teachers, of both directions."""
    parts = [-(taught.softmax(dim=dim) * logits.log_softmax(dim=dim)).sum(dim=dim).mean() for dim in (1, 2)]
    return sum(parts) / 2


def teach(args, setting: Setting, data: Data, features: Features, accelerator: Accelerator) -> torch.Tensor:
    """What teachers make of short and long captions, in the mean: (pictures, 2, dim)."""
    own = replace(setting, num_teachers=0)
    if own not in features.taught:
        rows = data.dataset.select(range(data.num_trained))
        captions = group_captions(rows)
        found = torch.zeros(data.num_trained, 2, features.whole.shape[1])
        for number in range(setting.num_teachers):
            model, processor = train(args, own, TUNING_SEED + 1 + number, data, features, accelerator)
            with accelerator.autocast():
                for slot, texts in enumerate(captions.values()):
                    for embeds, places in zip(embed_all(model, processor, list(texts)), texts.values()):
                        found[places, slot] += embeds
        features.taught[own] = normalize(found, dim=-1)
    return features.taught[own]


class SimilarImages(BatchSampler):
    """Batches of groups of images that are nearest neighbours of one of them, among those that are left."""

    def __init__(self, features: torch.Tensor, number: int, *args):
        super().__init__(*args)
        features = normalize(features, dim=-1)
        self.neighbours = (features @ features.T).argsort(dim=1, descending=True).tolist()
        self.number = number

    def order(self) -> list[int]:
        left, order = dict.fromkeys(super().order()), []
        while left:
            first = next(iter(left))
            del left[first]
            others = (place for place in self.neighbours[first] if place in left)
            group = list(islice(others, self.number - 1))
            order += [first, *group]
            for place in group:
                del left[place]
        return order


def draw_batches(
    samples: CaptionedImages, collate: SampleCollator, sampler: BatchSampler
) -> Iterator[tuple[dict[str, torch.Tensor], list[int]]]:
    """
    Batches without end, each with the places of its pictures. The rest of an epoch that makes no whole batch is left
    out.
    """
    while True:
        for keys in sampler:
            if len(keys) == sampler.global_batch_size:
                yield collate([samples[key] for key in keys])[0], [index for _, index, _ in keys]
        sampler.epoch += 1


def train(args: PhotographsArguments, setting: Setting, seed: int, data: Data, features: Features, accelerator):
    """Trains a setting with a seed: the model, in evaluation mode, and its processor."""
    taught = teach(args, setting, data, features, accelerator) if setting.num_teachers > 0 else None
    set_seed(seed)
    model, processor = make_model(args, setting, data, seed, features.states)
    train_args = make_train_args(args, setting, seed)
    sample_class = PartsForCorners if setting.corner_reads == "part" else CaptionedImages
    if setting.false_details is not None:
        sample_class = FalseDetails
    samples = sample_class(data.dataset.select(range(data.num_trained)), make_reader(data), train_args, seed)
    samples.num_views = 1
    compares_tokens = OBJECTIVES[setting.objective].is_token_wise
    samples.image_features = (features.tokens if compares_tokens else features.whole)[:, None]
    collate = SampleCollator(processor, processor.tokenizer.model_max_length, train_args.hard_negatives)
    contrastive = ContrastiveModel(model)
    groups = layer_groups(contrastive, train_args.weight_decay, setting)
    optimizer = torch.optim.AdamW(groups, lr=setting.learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True)
    scheduler = get_scheduler("cosine", optimizer, args.max_train_steps // 10, args.max_train_steps)
    contrastive, optimizer = accelerator.prepare(contrastive, optimizer)
    contrastive.train()
    size = min(args.per_device_train_batch_size, data.num_trained)
    sampler = SimilarImages(
        features.whole[: data.num_trained], setting.num_similar, data.num_trained, size, seed, 0, 1
    )
    batches = draw_batches(samples, collate, sampler)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kept, best = [parameter.detach().clone() for parameter in trained], 0
    for step, (batch, places) in zip(range(1, args.max_train_steps + 1), batches):
        embeds = BatchGroups(batch, accelerator).embed(contrastive, accelerator.device)
        crops = features.crops[places].to(accelerator.device) if features.crops is not None else None
        of_batch = taught[places].to(accelerator.device) if taught is not None else None
        loss = compute_loss(*embeds, crops, model, setting, batch, accelerator, of_batch)
        accelerator.backward(loss.loss)
        result = update(contrastive, optimizer, loss, train_args.max_grad_norm, accelerator)
        if not result.is_taken:
            raise ValueError(f"{setting.name}, seed {seed}: loss or gradients are not finite. Lower the rate.")
        scheduler.step()
        if setting.average_decay > 0:
            get_ema_multi_avg_fn(setting.average_decay)(kept, trained, step)
        if setting.best_of > 0 and (step % setting.best_of == 0 or step == args.max_train_steps):
            found = validate(model, processor, data, features, accelerator)
            if found > best:
                best, kept = found, [parameter.detach().clone() for parameter in trained]
            contrastive.train()
    if setting.average_decay > 0 or setting.best_of > 0:
        with torch.no_grad():
            for parameter, value in zip(trained, kept):
                parameter.copy_(value)
    accelerator.free_memory()
    return model.eval(), processor


def layer_groups(model: ContrastiveModel, weight_decay: float, setting: Setting) -> list[dict]:
    """The parameters with their rates, lower ones for lower layers of the text tower: see `layer_decay`."""
    groups = []
    text_model = model.model.text_model
    depth = len(text_model.layers)
    depths = {}
    for name, parameter in text_model.named_parameters():
        kind, number, *_ = name.split(".")
        depths[parameter] = 0 if kind == "embeddings" else int(number) + 1 if kind == "layers" else depth
    for group in parameter_groups(model, weight_decay):
        by_depth = {}
        for parameter in group["params"]:
            by_depth.setdefault(depths.get(parameter, depth), []).append(parameter)
        for own, parameters in by_depth.items():
            rate = setting.learning_rate * setting.layer_decay ** (depth - own)
            groups.append({**group, "params": parameters, "lr": rate})
    return groups


@torch.inference_mode()
def validate(model, processor, data: Data, features: Features, accelerator: Accelerator) -> float:
    """The mean reciprocal rank on the validation split."""
    model.eval()
    with accelerator.autocast():
        collections = data.collections["validation"]
        found = {each.name: rank_collection(model, processor, each, features) for each in collections}
    return statistics.fmean(mean_reciprocal_rank({"collections": found}, name) for name in found)


# ---------------------------------------------------------------------------------------------------------------------
# What came out


@torch.inference_mode()
def embed_all(model: LotlipModel, processor: LotlipProcessor, texts: list[str], with_corners: bool = False):
    """Normalised embeddings of texts, computed with those of like length."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    parts = []
    for start in range(0, len(order), 32):
        tokens = tokenize(processor, [texts[place] for place in order[start : start + 32]])
        parts.append(embed_texts(model, tokens, with_corners).float())
    embeds = pad_and_concatenate(parts) if parts[0].dim() == 3 else torch.cat(parts)
    return torch.empty_like(embeds).index_copy(0, torch.tensor(order), embeds)


def rank_collection(model, processor, collection: Collection, features: Features) -> dict[str, dict[str, list]]:
    """For each kind of caption and each direction the rank and the chance to be the first one, of each query."""
    found = {}
    images = (features.tokens if is_token_wise(model) else features.whole)[collection.places]
    images = normalize(images, dim=-1)
    rank = rank_by_tokens if is_token_wise(model) else retrieval_ranks
    for kind, captions in collection.captions.items():
        embeds = embed_all(model, processor, list(captions))
        ranks: tuple[RetrievalRanks, RetrievalRanks] = rank(images, embeds, list(captions.values()))
        for way, of_way in zip(("i2t", "t2i"), ranks):
            hits, expected = of_way.hits(1).tolist(), of_way.expected_rank().tolist()
            found[f"{kind}_{way}"] = {"hits@1": hits, "rank": expected}
    return found


def measure_corners(model, processor, collection: Collection) -> dict[str, float]:
    """
    The mean cosine of the corner tokens of long captions with `[CLS]` and with each other, as they are and less the
    mean over the texts.
    """
    embeds = embed_all(model, processor, list(collection.captions["long"]), with_corners=True)
    found = {}
    for name, values in (("cosine", embeds), ("centred cosine", embeds - embeds.mean(dim=0))):
        products = normalize(values, dim=-1)
        products = products @ products.mT
        rows, columns = torch.triu_indices(*products.shape[1:], offset=1)
        found[name] = products[:, rows, columns].mean().item()
    return found


def measure_reading(model, processor, collection: Collection, features: Features) -> dict[str, list[dict]]:
    """What of its long texts a model uses: see `lotlip sensitivity`."""
    captions = collection.captions["long"]
    images = normalize(features.whole, dim=-1)[[collection.places[places[0]] for places in captions.values()]]
    texts = LongTexts([split_sub_captions(text) for text in captions], images)
    return {
        "changes": measure_changes(model, processor, texts, seed=0),
        "lengths": measure_lengths(model, processor, texts, NUM_TOKENS),
    }


def run(
    args: PhotographsArguments,
    setting: Setting,
    seed: int,
    split: str,
    data: Data,
    features: Features,
    accelerator: Accelerator,
) -> None:
    """Trains and measures a setting with a seed, unless that is done. What another process trains is waited for."""
    path = find_run(args, setting, seed)
    if args.tables_only:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        is_asked = args.sensitivity and split == "test" and is_sensitive(setting)
        if path.exists() and not (is_asked and "reading" not in read_run(path)):
            return
        start = time.process_time()
        model, processor = train(args, setting, seed, data, features, accelerator)
        result = {"setting": asdict(setting), "seed": seed, "split": split}
        with torch.inference_mode(), accelerator.autocast():
            result |= measure(model, processor, data.collections[split], features, is_asked)
        result["seconds"] = time.process_time() - start
        write_json(path, result)
    if features.states and not find_states(args).exists():
        with atomic_write(find_states(args)) as partial:
            torch.save(features.states, partial)
    told = {name: format(mean_reciprocal_rank(result, name), ".1f") for name in result["collections"]}
    print(f"{setting.name}, seed {seed}: MRR {told} ({result['seconds']:.0f} s)", flush=True)


def measure(model, processor, collections: list[Collection], features: Features, with_reading: bool) -> dict:
    """What a model finds in each collection, how alike its corner tokens are, and what of long texts it uses."""
    result = {"collections": {each.name: rank_collection(model, processor, each, features) for each in collections}}
    if model.config.text_config.num_corner_tokens > 0:
        result["corners"] = {each.name: measure_corners(model, processor, each) for each in collections}
    if with_reading:
        result["reading"] = {each.name: measure_reading(model, processor, each, features) for each in collections}
    return result


def is_sensitive(setting: Setting) -> bool:
    return any(replace(setting, learning_rate=None, logit_scale=None) == other for other in SENSITIVE)


def find_states(args: PhotographsArguments) -> Path:
    """The file of what frozen layers of the text tower made of texts."""
    return args.output_dir / "text_states.pt"


def find_run(args: PhotographsArguments, setting: Setting, seed: int) -> Path:
    """The file of a run."""
    return args.output_dir / "runs" / f"{setting.name},seed={seed}.json"


def read_run(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def mean_reciprocal_rank(result: dict, collection: str) -> float:
    """In per cent, the mean over both kinds of captions and both directions."""
    ranks = [query["rank"] for query in result["collections"][collection].values()]
    return 100 * statistics.fmean(statistics.fmean(1 / rank for rank in of_kind) for of_kind in ranks)


# ---------------------------------------------------------------------------------------------------------------------
# Rate and temperature


def tune(args: PhotographsArguments, setting: Setting, *runner) -> tuple[float, float]:
    """
    Rate and inverse temperature of an objective that find most on the validation split: first the rate, at the first
    of `SCALES`, then the temperature.
    """
    tried = {}

    def measure(rate: float, scale: float) -> float:
        own = replace(setting, learning_rate=rate, logit_scale=scale)
        run(args, own, TUNING_SEED, "validation", *runner)
        path = find_run(args, own, TUNING_SEED)
        if not path.exists():
            raise ValueError(f"{path} is missing, by which a rate is chosen: run without --tables_only first.")
        result = read_run(path)
        tried[rate, scale] = statistics.fmean(mean_reciprocal_rank(result, name) for name in result["collections"])
        return tried[rate, scale]

    rate = max(RATES, key=lambda rate: measure(rate, SCALES[0]))
    for scale in SCALES[1:]:
        measure(rate, scale)
    return max(tried, key=tried.get)


def choose_settings(args: PhotographsArguments, group: str) -> dict[str, Setting]:
    return {name: setting for name, setting in GROUPS[group].settings.items() if name not in args.leave_out}


def list_settings(args: PhotographsArguments, *runner) -> dict[str, dict[str, Setting]]:
    """
    By group and name the settings with their rate and temperature: each objective its own, and all others those of
    CLIP on both captions.
    """
    chosen: dict[Setting, tuple[float, float]] = {}

    def choose(setting: Setting) -> Setting:
        if args.learning_rate is not None:
            rate, scale = args.learning_rate, args.logit_scale
        else:
            if setting not in chosen:
                chosen[setting] = tune(args, setting, *runner)
                print(f"{setting.name}: rate {chosen[setting][0]:g}, scale {chosen[setting][1]:g}", flush=True)
            rate, scale = chosen[setting]
        return replace(setting, learning_rate=rate, logit_scale=scale)

    settings = {}
    for group in args.groups:
        own = choose_settings(args, group)
        if group == "objectives":
            settings[group] = {name: choose(setting) for name, setting in own.items()}
        else:
            shared = choose(BOTH)
            rates = {"learning_rate": shared.learning_rate, "logit_scale": shared.logit_scale}
            settings[group] = {name: replace(setting, **rates) for name, setting in own.items()}
    return settings


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def read_runs(args: PhotographsArguments, setting: Setting) -> dict[int, dict]:
    """The results of a setting that are there, by seed."""
    paths = {seed: find_run(args, setting, seed) for seed in args.seeds}
    return {seed: read_run(path) for seed, path in paths.items() if path.exists()}


def stack_queries(runs: list[dict], metric: str, value: str, collection: str | None = None) -> torch.Tensor:
    """
    A result of each query (seeds, queries): its chance to be the first (`hits@1`), or its reciprocal rank (`mrr`).

    Args:
        runs (`list[dict]`):
            The results of each seed.
        metric (`str`):
            A key of `METRICS`.
        value (`str`):
            `"hits@1"` or `"mrr"`.
        collection (`str`, *optional*):
            Its queries alone. Default: those of all collections, each searched for in its own.
    """
    rows = []
    for run in runs:
        names = list(run["collections"]) if collection is None else [collection]
        of_run = [torch.tensor(run["collections"][name][metric]["rank"]) for name in names]
        if value == "mrr":
            rows.append(torch.cat([1 / ranks for ranks in of_run]))
        else:
            rows.append(torch.cat([torch.tensor(run["collections"][name][metric][value]) for name in names]))
    return 100 * torch.stack(rows)


def summarise(runs: dict[int, dict], collection: str | None = None) -> dict[str, dict]:
    """Mean and deviation over the seeds of each result, in per cent."""
    found = {}
    for metric in METRICS:
        for value, title in (("hits@1", "recall@1"), ("mrr", "mrr")):
            of_seeds = stack_queries(list(runs.values()), metric, value, collection).mean(dim=1)
            deviation = of_seeds.std().item() if len(of_seeds) > 1 else None
            found[f"{metric}_{title}"] = {"mean": of_seeds.mean().item(), "deviation": deviation}
    return found


def compare(one: dict[int, dict], other: dict[int, dict], collection: str | None = None) -> dict[str, dict] | None:
    """
    The gain of one setting over another in each result, over the seeds that both have: its mean, its deviation over
    the seeds, and the interval of a paired bootstrap over the queries.
    """
    seeds = sorted(set(one) & set(other))
    if not seeds:
        return None
    found = {}
    for metric in METRICS:
        for value, title in (("hits@1", "recall@1"), ("mrr", "mrr")):
            gains = torch.sub(
                *(stack_queries([runs[seed] for seed in seeds], metric, value, collection) for runs in (one, other))
            )
            deviation = gains.mean(dim=1).std().item() if len(seeds) > 1 else None
            interval = bootstrap(gains.mean(dim=0))
            found[f"{metric}_{title}"] = {"gain": gains.mean().item(), "deviation": deviation, "interval": interval}
    return found


def format_mean(result: dict) -> str:
    """
    Mean and deviation as a cell.

    ```python
    >>> from examples.paper.photographs import format_mean

    >>> format_mean({"mean": 12.34, "deviation": 0.56})
    '12.3 ± 0.6'
    ```"""
    return f"{result['mean']:.1f}" + ("" if result["deviation"] is None else f" ± {result['deviation']:.1f}")


def format_gain(result: dict) -> str:
    """A gain and its interval as a cell."""
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(result["gain"], *result["interval"])


def collect(args: PhotographsArguments, group: str, settings: dict[str, Setting]) -> dict:
    """What is there of a group: for all collections together and for each the results and the gains."""
    runs = {name: read_runs(args, setting) for name, setting in settings.items()}
    runs = {name: of_setting for name, of_setting in runs.items() if of_setting}
    names = list(next(iter(next(iter(runs.values())).values()))["collections"]) if runs else []
    parts = {"all": None} | ({name: name for name in names} if len(names) > 1 else {})
    pairs = [pair for pair in GROUPS[group].differences if runs.keys() >= set(pair)]
    return {
        "question": GROUPS[group].question,
        "settings": {name: asdict(setting) for name, setting in settings.items()},
        "seeds": {name: list(of_setting) for name, of_setting in runs.items()},
        "results": {
            part: {name: summarise(of_setting, collection) for name, of_setting in runs.items()}
            for part, collection in parts.items()
        },
        "gains": {
            part: [
                {"setting": one, "over": other, **(compare(runs[one], runs[other], collection) or {})}
                for one, other in pairs
            ]
            for part, collection in parts.items()
        },
        "corners": {name: corners for name, of_setting in runs.items() if (corners := average_corners(of_setting))},
        "reading": {name: reading for name, of_setting in runs.items() if (reading := average_reading(of_setting))},
    }


def average_corners(runs: dict[int, dict]) -> dict[str, float]:
    """The cosines of corner tokens, in the mean over collections and seeds."""
    found = [of_collection for run in runs.values() for of_collection in run.get("corners", {}).values()]
    return {name: statistics.fmean(each[name] for each in found) for name in found[0]} if found else {}


def average_reading(runs: dict[int, dict]) -> dict[str, dict]:
    """
    What of long texts the models use, in the mean over the seeds and over all texts: of each change the recall before
    and after it, and the recall by tokens that are kept.
    """
    changes, lengths = {}, {}
    for run in runs.values():
        for name, reading in run.get("reading", {}).items():
            num_texts = len(run["collections"][name]["long_t2i"]["rank"])
            for row in reading["changes"]:
                values = [row[time]["t2i_recall@1"] for time in ("before", "after")] + [row["prefers_original"]]
                changes.setdefault(row["change"], []).append((row["num_texts"], values))
            for row in reading["lengths"]:
                lengths.setdefault(row["num_tokens"], []).append((num_texts, [row["t2i_recall@1"]]))
    if not changes:
        return {}

    def average(rows: list[tuple[int, list[float]]]) -> list[float]:
        weights, values = zip(*rows)
        return [sum(map(mul, weights, column)) / sum(weights) for column in zip(*values)]

    return {
        "changes": {name: dict(zip(("before", "after", "prefers"), average(rows))) for name, rows in changes.items()},
        "lengths": {number: average(rows)[0] for number, rows in sorted(lengths.items())},
    }


def format_group(found: dict) -> str:
    """The tables of a group."""
    parts = [f"## {found['question']}"]
    shown = list(METRICS)
    for part, rows in found["results"].items():
        cells = [
            [
                name,
                *(format_mean(row[f"{metric}_recall@1"]) for metric in shown),
                format_mean(row["long_t2i_mrr"]),
                str(len(found["seeds"][name])),
            ]
            for name, row in rows.items()
        ]
        titles = ["setting", *(f"{METRICS[metric]} R@1" for metric in shown), "long T2I MRR", "seeds"]
        parts += [f"On {part}:", format_markdown(titles, cells)]
        gains = [
            [
                f"{row['setting']} - {row['over']}",
                *(format_gain(row[f"{metric}_recall@1"]) for metric in ("long_t2i", "short_t2i")),
                *(format_gain(row[f"{metric}_mrr"]) for metric in ("long_t2i", "short_t2i")),
            ]
            for row in found["gains"][part]
            if "long_t2i_mrr" in row
        ]
        titles = ["gain (95 %)", "long T2I R@1", "short T2I R@1", "long T2I MRR", "short T2I MRR"]
        parts.append(format_markdown(titles, gains))
    if found["corners"]:
        cells = [[name, *(f"{value:.3f}" for value in row.values())] for name, row in found["corners"].items()]
        parts.append(format_markdown(["setting", "cosine of [CLS] and corners", "less the mean of texts"], cells))
    if found["reading"]:
        rows = [
            [name, change, *(f"{value:.1f}" for value in values.values())]
            for name, reading in found["reading"].items()
            for change, values in reading["changes"].items()
        ]
        parts.append(format_markdown(["setting", "change", "T2I R@1 before", "after", "original nearer"], rows))
        numbers = list(dict.fromkeys(n for reading in found["reading"].values() for n in reading["lengths"]))
        rows = [
            [name, *(f"{reading['lengths'][number]:.1f}" for number in numbers)]
            for name, reading in found["reading"].items()
        ]
        parts.append(format_markdown(["tokens kept", *map(str, numbers)], rows))
    return "\n\n".join(parts)


def write_tables(args: PhotographsArguments, settings: dict[str, dict[str, Setting]]) -> None:
    """Writes `results.json` and `results.md`, and prints the latter."""
    found = {group: collect(args, group, of_group) for group, of_group in settings.items()}
    page = "\n\n".join(format_group(of_group) for of_group in found.values())
    print(page, flush=True)
    write_text(args.output_dir / "results.md", page + "\n")
    write_json(args.output_dir / "results.json", found)


def check_settings(args: PhotographsArguments) -> None:
    """Refuses to mix runs of different models, data or trainings in a folder, and notes those of a new one."""
    chosen_each_time = ("output_dir", "groups", "leave_out", "seeds", "learning_rate", "logit_scale")
    chosen_each_time += ("sensitivity", "tables_only")
    settings = {name: value for name, value in vars(args).items() if name not in chosen_each_time}
    path = args.output_dir / "settings.json"
    if path.exists():
        refuse_other_settings(read_run(path), settings, args.output_dir, "runs")
    else:
        write_json(path, settings)


def main() -> None:
    (args,) = parse((PhotographsArguments,), description=__doc__)
    check_settings(args)
    data = load_data(args)
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    asked = [setting for name in args.groups for setting in choose_settings(args, name).values()]
    features = compute_features(args, data, asked, accelerator) if not args.tables_only else None
    runner = (data, features, accelerator)
    settings = list_settings(args, *runner)
    for of_group in settings.values():
        for seed in args.seeds:
            for setting in of_group.values():
                run(args, setting, seed, "test", *runner)
    write_tables(args, settings)


if __name__ == "__main__":
    with exit_on_error("photographs.py"):
        main()
