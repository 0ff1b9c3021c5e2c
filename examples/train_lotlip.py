# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Contrastive training of LoTLIP on images with short and long captions.

On the embedded data set of drawn scenes, a small model from scratch:

    accelerate launch examples/train_lotlip.py --output_dir outputs/demo

On your own captioned images, with a locked image tower as in the paper:

    accelerate launch examples/train_lotlip.py --output_dir outputs/mine \
        --dataset_name imagefolder --data_dir FOLDER \
        --vision_model_name_or_path google/vit-base-patch16-224-in21k \
        --text_model_name_or_path google-bert/bert-base-uncased
"""

import argparse
import logging
import math
import os
import re
import shutil
import signal
import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import datasets
import torch
from accelerate import Accelerator, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    InitProcessGroupKwargs,
    ProjectConfiguration,
    gather_object,
    set_seed,
)
from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HOME
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import InterpolationMode, RandomResizedCrop
from tqdm.auto import tqdm
from transformers import get_scheduler

from modeling_lotlip import LotlipModel, LotlipProcessor
from modeling_lotlip.data.arguments import HelpFormatter, add_data_arguments, add_side_file_arguments
from modeling_lotlip.data.captions import CaptionReader
from modeling_lotlip.data.loading import (
    compute_fingerprint,
    get_columns,
    leave_signals_to_the_main_process,
    load_split,
)
from modeling_lotlip.data.side_captions import UnmatchedKeys
from modeling_lotlip.embedding.models import count_positions
from modeling_lotlip.evaluation.classification import (
    classify,
    embed_classes,
    read_class_names,
)
from modeling_lotlip.evaluation.retrieval import embed_dataset, format_table, measure_retrieval
from modeling_lotlip.files import write_json
from modeling_lotlip.hub import push_folder, save_with_remote_code, write_model_card
from modeling_lotlip.signals import StopSignal
from modeling_lotlip.training.checkpoints import (
    Progress,
    check_output_dir,
    find_checkpoint,
    find_leftovers,
    goes_on_in_output_dir,
    load_checkpoint,
    read_state,
    save_checkpoint,
    set_aside_later_checkpoints,
)
from modeling_lotlip.training.gradient_cache import backward_in_chunks
from modeling_lotlip.training.image_features import cache_image_features
from modeling_lotlip.training.models import build_model
from modeling_lotlip.training.monitoring import MetricsLog, Throughput, measure_slots, peak_memory
from modeling_lotlip.training.objectives import OBJECTIVES, scalars_of
from modeling_lotlip.training.positions import stretch_positions
from modeling_lotlip.training.samples import BadSamples, CaptionedImages, Collator, GlobalBatches, StreamedBatches
from modeling_lotlip.training.step import global_loss, parameter_groups
from modeling_lotlip.training.summary import SETTINGS_FILE, write_summary


logger = logging.getLogger(__name__)


# What a model card need not say of a training
NOT_IN_CARD = (
    "checkpoints_total_limit",
    "dataloader_num_workers",
    "ddp_timeout",
    "logging_steps",
    "overwrite_output_dir",
    "push_to_hub",
    "streaming",
    "trust_remote_code",
    "with_tracking",
)
BIASES_OF_SCENES = (
    "It has seen nothing but drawn scenes, and knows no photographs, no people, and few words. It is for trying out "
    "how such models are trained and used, not for use."
)

# What a resumed run must share with the one it goes on with, to take the same steps.
RESUMED_SETTINGS = (
    "seed",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "max_length",
    "max_position_embeddings",
    "no_corner_attention_mask",
    "num_long_captions",
    "no_short_captions",
    "draw_short_from_all",
    "objective",
    "num_sub_captions",
    "drop_summary",
    "sub_caption_splitter",
    "min_crop_scale",
    "num_views",
    "keep_duplicate_negatives",
    "num_corner_tokens",
    "dataset_name",
    "dataset_config_name",
    "train_split",
    "image_column",
    "caption_column",
    "long_captions_column",
    "shuffle_buffer_size",
    "data_weights",
    "side_files",
    "side_key_column",
    "side_caption_columns",
    "key_column",
)
# The results of an evaluation, by any of which the best model is kept
METRICS = re.compile(r"(short|long)_(((i2t|t2i)_(recall@(1|5|10)|median_rank))|mean_recall)|zero_shot_top[15]")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="Where model, checkpoints and results go.")
    parser.add_argument("--overwrite_output_dir", action="store_true", help="Replace what an earlier run left there.")
    add_data_arguments(parser)
    parser.add_argument("--data_weights", nargs="+", type=float, help="How often to draw from each of --data_files.")
    parser.add_argument("--eval_data_files", nargs="+", help="Evaluate on these files, not on --data_files.")
    add_side_file_arguments(parser)
    parser.add_argument(
        "--objective",
        default="lotlip",
        choices=list(OBJECTIVES),
        help="; ".join(f"{name}: {objective.help}" for name, objective in OBJECTIVES.items()) + ".",
    )

    group = parser.add_argument_group("model", "Towers that are not named are small, and trained from scratch.")
    group.add_argument("--model_name_or_path", help="A LoTLIP model to train further.")
    group.add_argument("--text_model_name_or_path", help="A BERT to start the text tower from.")
    group.add_argument(
        "--vision_model_name_or_path",
        help="A ViT or DINOv2 (transformers), a ViT (timm) or another LoTLIP to start the image tower from.",
    )
    group.add_argument("--config_name", help="The configuration of a model from scratch, a Hub id or a folder.")
    group.add_argument("--tokenizer_name", help="A BERT tokenizer, if not that of the text tower.")
    group.add_argument("--num_corner_tokens", type=int, help="2 for LoTLIP by default, or those of the model.")
    group.add_argument("--no_corner_attention_mask", action="store_true", help="Let all tokens see the corner tokens.")
    group.add_argument(
        "--freeze_vision_model",
        action="store_true",
        default=None,
        help="Lock the image tower. Default: locked if and only if its weights were loaded.",
    )
    group.add_argument(
        "--no_freeze_vision_model", dest="freeze_vision_model", action="store_false", help="Train the image tower."
    )
    group.add_argument(
        "--cache_image_features",
        action="store_true",
        help="Run a locked image tower once, before training, and keep its output on disk for this and later runs.",
    )
    group.add_argument(
        "--image_features_dir",
        type=Path,
        help="Where it is kept. Default: below the Hub's cache.",
    )
    group.add_argument("--image_size", type=int, help="In pixels. Default: that of the image tower; 64 from scratch.")
    group.add_argument("--max_length", type=int, help="Tokens of a text, corners not counted. Default: 128 less them.")
    group.add_argument(
        "--max_position_embeddings",
        type=int,
        help="Stretch the position table of the text tower to so many, keeping the first 20, as Long-CLIP does.",
    )
    group.add_argument("--gradient_checkpointing", action="store_true", help="Compute layers twice to save memory.")

    group = parser.add_argument_group("captions")
    group.add_argument("--num_long_captions", type=int, help="Long captions drawn for an image. 1 for LoTLIP, else 0.")
    group.add_argument(
        "--draw_short_from_all",
        action="store_true",
        default=None,
        help="Draw the short caption among the short and the long ones, as LaCLIP does.",
    )
    group.add_argument(
        "--drop_summary",
        action="store_true",
        default=None,
        help="Take for the short caption any number of a long one's sub-captions but the first, a summary, as "
        "DeBias-CLIP does.",
    )
    group.add_argument("--no_short_captions", action="store_true", help="Train on long captions alone.")
    group.add_argument("--num_sub_captions", type=int, help="Consecutive sub-captions drawn of each. Default: all.")
    group.add_argument(
        "--min_crop_scale",
        type=float,
        help="Smallest part of an image that is cut out. Default: 0.9, and 1 (all of it) for drawn scenes.",
    )
    group.add_argument(
        "--num_views",
        type=int,
        help="Random crops of an image that a locked image tower sees, in turns. Default: the image as it is.",
    )
    group.add_argument(
        "--keep_duplicate_negatives",
        action="store_true",
        help="Contrast images whose short captions are the same, too.",
    )

    group.add_argument(
        "--max_bad_fraction",
        type=float,
        default=0.01,
        help="Samples that cannot be used are skipped and counted; the run ends if more than this share of them are.",
    )
    group.add_argument("--max_bad_in_a_row", type=int, default=100, help="It ends too after so many in a row.")
    group.add_argument(
        "--shuffle_buffer_size", type=int, default=10_000, help="Rows of a stream from which the next one is drawn."
    )

    group = parser.add_argument_group("training")
    group.add_argument("--per_device_train_batch_size", type=int, default=64, help="Images of a process in a step.")
    group.add_argument(
        "--per_device_eval_batch_size", type=int, default=64, help="Images in a batch of an evaluation."
    )
    group.add_argument("--learning_rate", type=float, default=1e-3, help="The highest one, after the warm-up.")
    group.add_argument("--weight_decay", type=float, default=0.1, help="Of matrices only.")
    group.add_argument("--adam_beta1", type=float, default=0.9, help="AdamW's decay of the mean.")
    group.add_argument("--adam_beta2", type=float, default=0.98, help="AdamW's decay of the variance.")
    group.add_argument("--adam_epsilon", type=float, default=1e-6, help="AdamW's least divisor.")
    group.add_argument("--max_grad_norm", type=float, default=1.0, help="Clip gradients to this norm; 0: do not.")
    group.add_argument("--num_train_epochs", type=int, default=10, help="Passes over the training data.")
    group.add_argument("--max_train_steps", type=int, help="Optimizer steps, instead of a number of epochs.")
    group.add_argument(
        "--lr_scheduler_type",
        default="cosine",
        choices=["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"],
        help="How the learning rate falls after the warm-up.",
    )
    group.add_argument("--warmup_steps", type=int, default=200, help="Steps in which the learning rate rises.")
    group.add_argument(
        "--gradient_accumulation_steps",
        type=int,
        default=1,
        help="Batches of an optimizer step, each contrasted for itself.",
    )
    group.add_argument(
        "--grad_cache_chunk_size",
        type=int,
        help="Encode so many images and their texts at a time: a batch of any size in the memory of these.",
    )
    group.add_argument(
        "--mixed_precision", choices=["no", "fp16", "bf16"], help="Default: as accelerate is configured."
    )
    group.add_argument(
        "--max_skipped_steps",
        type=int,
        default=10,
        help="A step whose loss or gradients are not finite is skipped; after so many in a row the run ends.",
    )
    group.add_argument("--checkpointing_steps", help="Save the state every so many steps, or every `epoch`.")
    group.add_argument("--checkpoints_total_limit", type=int, help="Keep so many checkpoints, the last ones.")
    group.add_argument(
        "--resume_from_checkpoint", help="A checkpoint, or `latest` for the last one of the output folder."
    )
    group.add_argument(
        "--ddp_timeout", type=int, default=1800, help="Seconds after which a process gives up waiting for another."
    )
    group.add_argument("--seed", type=int, default=0, help="Of weights, data order, crops and captions drawn.")

    group = parser.add_argument_group("evaluation and tracking", "Images with class labels are classified, too.")
    group.add_argument("--eval_steps", type=int, default=500, help="Evaluate every so many steps, and at the end.")
    group.add_argument("--class_names", nargs="+", help="The classes, in the order of the labels.")
    group.add_argument("--class_names_file", type=Path, help="A file with the name of a class on each line.")
    group.add_argument(
        "--templates",
        nargs="+",
        default=["a photo of a {}"],
        help="Prompts with {} in the place of the name; averaged.",
    )
    group.add_argument(
        "--metric_for_best_model",
        help="Keep the best model by such a result in `OUTPUT_DIR/best`: `long_t2i_recall@1`, `zero_shot_top1`, ...",
    )
    group.add_argument("--logging_steps", type=int, default=10, help="Measure every so many steps.")
    group.add_argument("--with_tracking", action="store_true", help="Send measurements and results to trackers.")
    group.add_argument("--report_to", default="all", help="`tensorboard`, `wandb`, ..., or `all` that are installed.")
    group.add_argument(
        "--push_to_hub", action="store_true", help="Upload the model at the end, the best one if one is kept."
    )
    group.add_argument("--hub_model_id", help="The repository to upload to. Default: named after the output folder.")
    group.add_argument(
        "--language", nargs="+", default=["en"], help="The captions' languages, ISO codes, for the model card."
    )
    args = parser.parse_args()

    for name, value in OBJECTIVES[args.objective].defaults.items():
        is_of_the_model = name == "num_corner_tokens" and args.model_name_or_path is not None
        if getattr(args, name) is None and not is_of_the_model:
            setattr(args, name, value)
    if args.num_long_captions is None:
        args.num_long_captions = 1
    if args.model_name_or_path and (
        args.text_model_name_or_path or args.vision_model_name_or_path or args.config_name
    ):
        parser.error("--model_name_or_path is a whole model: it excludes the names of towers and --config_name.")
    if args.model_name_or_path and (args.image_size or args.tokenizer_name):
        parser.error("--image_size and --tokenizer_name are for new models: --model_name_or_path brings its own.")
    for name in (
        "max_train_samples",
        "max_eval_samples",
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "gradient_accumulation_steps",
        "grad_cache_chunk_size",
        "num_train_epochs",
        "max_train_steps",
        "num_sub_captions",
        "num_views",
        "eval_steps",
        "logging_steps",
        "max_skipped_steps",
        "checkpoints_total_limit",
        "max_bad_in_a_row",
        "shuffle_buffer_size",
    ):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(args, name)}.")
    if args.min_crop_scale is None:
        args.min_crop_scale = 1.0 if args.dataset_name is None else 0.9
    if not 0 < args.min_crop_scale <= 1:
        parser.error(f"--min_crop_scale must be above 0 and at most 1, got {args.min_crop_scale}.")
    if args.checkpointing_steps not in (None, "epoch"):
        if not args.checkpointing_steps.isdecimal() or int(args.checkpointing_steps) < 1:
            parser.error(f"--checkpointing_steps must be a number or `epoch`, got {args.checkpointing_steps}.")
    if args.no_short_captions and args.num_long_captions == 0:
        parser.error("--no_short_captions and --num_long_captions 0 leave nothing to train on.")
    if args.drop_summary and (args.no_short_captions or args.draw_short_from_all):
        parser.error("--drop_summary draws the short caption: it excludes --no_short_captions and LaCLIP's draws.")
    for name in ("max_grad_norm", "warmup_steps", "num_long_captions"):
        if getattr(args, name) < 0:
            parser.error(f"--{name} must be at least 0, got {getattr(args, name)}.")
    if args.image_features_dir is not None and not args.cache_image_features:
        parser.error("--image_features_dir is for --cache_image_features, which is not given.")
    if not 0 <= args.max_bad_fraction <= 1:
        parser.error(f"--max_bad_fraction must be from 0 to 1, got {args.max_bad_fraction}.")
    if args.streaming and args.dataset_name is None:
        parser.error("--streaming needs --dataset_name: the drawn scenes are no stream.")
    if args.streaming and args.max_train_steps is None:
        parser.error("--streaming needs --max_train_steps: a stream does not know its length.")
    if args.metric_for_best_model is not None and METRICS.fullmatch(args.metric_for_best_model) is None:
        parser.error(
            f"--metric_for_best_model {args.metric_for_best_model} is no result of the evaluation. Results are "
            "short_t2i_recall@1, long_mean_recall, zero_shot_top1, ..."
        )
    if args.data_weights is not None:
        num_sources = len(args.data_files or [])
        if len(args.data_weights) != num_sources or num_sources < 2:
            parser.error(
                f"--data_weights gives {len(args.data_weights)} weights for the {num_sources} values of --data_files: "
                "give one for each, two or more (a value may be a pattern)."
            )
        if min(args.data_weights) <= 0:
            parser.error(f"--data_weights must be above 0, got {args.data_weights}.")
    if args.streaming and args.cache_image_features:
        parser.error("--cache_image_features needs the whole data set, not a stream: leave out --streaming.")
    return args


# ---------------------------------------------------------------------------------------------------------------------
# Model


# ---------------------------------------------------------------------------------------------------------------------
# The loss of the global batch


# ---------------------------------------------------------------------------------------------------------------------
# What is kept


def whole_model(model: torch.nn.Module, args: argparse.Namespace, accelerator: Accelerator) -> LotlipModel:
    """The model itself; where its parameters are sharded (FSDP2) a copy that has all of them, on every process."""
    unwrapped_model = accelerator.unwrap_model(model)
    if not accelerator.is_fsdp2:
        return unwrapped_model
    weights = get_model_state_dict(unwrapped_model, options=StateDictOptions(full_state_dict=True))
    with torch.random.fork_rng():
        copy = OBJECTIVES[args.objective].model_class(unwrapped_model.config)
        OBJECTIVES[args.objective].prepare(copy)
    copy.load_state_dict(weights)
    return copy.to(accelerator.device)


def public_name(name: str) -> str:
    """What the model card calls a data set or a model: not by its path on this machine."""
    return Path(name).resolve().name if Path(name).exists() else name


def save_model(
    args: argparse.Namespace,
    folder: Path,
    model: LotlipModel,
    processor: LotlipProcessor,
    results: dict[str, float] | None = None,
) -> list[str]:
    """
    Saves the trained model with its code and a model card; complete files take the place of earlier ones.

    Returns the names of the files.
    """
    partial_dir = args.output_dir / "model.partial"
    shutil.rmtree(partial_dir, ignore_errors=True)
    save_with_remote_code(model, processor, partial_dir)
    sources = [args.model_name_or_path, args.vision_model_name_or_path, args.text_model_name_or_path]
    sources = [name for name in sources if name is not None]
    write_model_card(
        partial_dir,
        repo_id=args.hub_model_id or args.output_dir.resolve().name,
        provenance="Trained by `examples/train_lotlip.py` on "
        f"{public_name(args.dataset_name) if args.dataset_name else 'drawn scenes'}, from "
        f"{' and '.join(map(public_name, sources)) or 'random weights'}, with seed {args.seed}.",
        license="other",
        license_note="The weights are under the terms of the data and the models that they were trained from.",
        base_model=[name for name in sources if not Path(name).exists()] or None,
        results=results,
        dataset=public_name(args.dataset_name) if args.dataset_name else "drawn scenes",
        dataset_split=args.eval_split,
        settings={
            name: value
            for name, value in (vars(args) | {"num_processes": PartialState().num_processes}).items()
            # no names of files, which are of this machine
            if (isinstance(value, (int, float)) and name not in NOT_IN_CARD)
            or (value is not None and name in ("objective", "lr_scheduler_type", "mixed_precision"))
        },
        language=args.language if len(args.language) > 1 else args.language[0],
        **({} if args.dataset_name or sources else {"biases": BIASES_OF_SCENES}),
    )
    folder.mkdir(exist_ok=True)
    if results is not None:
        write_json(partial_dir / "eval_results.json", results)
    names = [file.name for file in partial_dir.iterdir()]
    for name in names:
        (partial_dir / name).replace(folder / name)
    partial_dir.rmdir()
    return names


def push_model(args: argparse.Namespace, names: list[str]) -> None:
    """Uploads the files of the best model, if one is kept, else of the last."""
    folder = args.output_dir / "best" if args.metric_for_best_model is not None else args.output_dir
    url = push_folder(folder, args.hub_model_id or args.output_dir.resolve().name, allow_patterns=names)
    logger.info(f"Uploaded to {url}.")


def check_services(args: argparse.Namespace) -> None:
    """
    Refuses trackers that are not installed, and a repository that cannot be uploaded to, before anything is done.

    Raises:
        `ValueError`: if a tracker is missing.
        `HfHubHTTPError`: if the Hub refuses, for instance because nobody is logged in (`hf auth login`).
    """
    if args.with_tracking:
        installed = [str(tracker) for tracker in get_available_trackers()]
        if not installed or args.report_to not in ("all", *installed):
            raise ValueError(
                f"`--report_to {args.report_to}` is not installed; installed are {installed}. Install a tracker, such "
                "as `pip install tensorboard`."
            )
    if args.push_to_hub and PartialState().is_main_process:
        HfApi().create_repo(args.hub_model_id or args.output_dir.resolve().name, exist_ok=True)


# ---------------------------------------------------------------------------------------------------------------------
# Training


def main() -> None:
    args = parse_args()
    accelerator = Accelerator(
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        mixed_precision=args.mixed_precision,
        log_with=args.report_to if args.with_tracking else None,
        project_config=ProjectConfiguration(
            project_dir=str(args.output_dir), logging_dir=str(args.output_dir / "logs")
        ),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=args.ddp_timeout))],
    )
    logging.basicConfig(format="%(asctime)s - %(levelname)s - %(message)s", datefmt="%H:%M:%S")
    logger.setLevel(logging.INFO if accelerator.is_main_process else logging.ERROR)
    if accelerator.device.type == "cpu":
        # `accelerate launch` leaves all cores but one idle
        torch.set_num_threads(max(1, os.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    check_output_dir(args)
    check_services(args)
    checkpoint = find_checkpoint(args)
    accelerator.wait_for_everyone()
    set_seed(args.seed)

    # Data. One process reads a new data set first, the others find it in the cache.
    eval_args = argparse.Namespace(
        **vars(args),
        batch_size=args.per_device_eval_batch_size,
        text_embedding="cls",
        distinct_short_captions=args.dataset_name is None,
    )
    eval_args.data_files = args.eval_data_files or args.data_files
    with accelerator.main_process_first():
        train_data = load_split(
            args, args.train_split, args.max_train_samples, weights=args.data_weights, seed=args.seed
        )
        eval_data = load_split(eval_args, args.eval_split, args.max_eval_samples)
        reader = CaptionReader(get_columns(train_data), args, args, args.image_column)
        eval_reader = CaptionReader(get_columns(eval_data), eval_args, eval_args, eval_args.image_column)
    if args.objective == "long_clip" and (args.no_short_captions or reader.short_column is None):
        raise ValueError(
            "`--objective long_clip` is `clip` on long captions where there are no short ones, whose loss it changes: "
            "name their column with `--caption_column`, or train with `debias`, which draws them from the long ones."
        )
    num_samples = None if args.streaming else len(train_data)
    global_batch_size = args.per_device_train_batch_size * accelerator.num_processes
    if global_batch_size < 2:
        raise ValueError("A batch of one image has nothing to be contrasted with: raise the batch size to 2 or more.")
    if num_samples is not None and num_samples < global_batch_size:
        raise ValueError(
            f"The training data has {num_samples} images, too few for one batch of {global_batch_size} "
            f"(`--per_device_train_batch_size {args.per_device_train_batch_size}`, {accelerator.num_processes} "
            "processes): lower the batch size."
        )
    class_names = None
    if args.label_column in get_columns(eval_data):
        label_feature = eval_data.features[args.label_column] if eval_data.features else None
        if args.class_names or args.class_names_file or isinstance(label_feature, datasets.ClassLabel):
            class_names = read_class_names(label_feature, args.class_names, args.class_names_file)
    elif args.class_names or args.class_names_file:
        raise ValueError(f"`--label_column {args.label_column}` is no column of the evaluation data: name it.")
    kinds = {"short": eval_reader.short_column, "long": eval_reader.has_long_captions, "zero": class_names}
    kind = (args.metric_for_best_model or "").split("_")[0]
    if kind and not kinds[kind]:
        raise ValueError(
            f"`--metric_for_best_model {args.metric_for_best_model}` cannot be measured: the evaluation data has no "
            f"{'class labels' if kind == 'zero' else f'{kind} captions'}."
        )

    # Model
    model, processor, has_pretrained_vision = build_model(args, train_data, reader)
    text_config = model.config.text_config
    if args.max_position_embeddings is not None:
        stretch_positions(model, args.max_position_embeddings)
    position_limit = count_positions(model)
    if args.max_length is None:
        args.max_length = min(128 - text_config.num_corner_tokens, position_limit)
    if args.max_length > position_limit:
        raise ValueError(
            f"`--max_length {args.max_length}` is beyond the {position_limit} positions of the text tower."
        )
    if args.max_length <= processor.tokenizer.num_special_tokens_to_add():
        raise ValueError(f"`--max_length {args.max_length}` leaves no room for a text beside the special tokens.")
    processor.tokenizer.model_max_length = eval_args.max_length = args.max_length

    is_locked = args.freeze_vision_model if args.freeze_vision_model is not None else has_pretrained_vision
    model.vision_model.requires_grad_(not is_locked)
    OBJECTIVES[args.objective].prepare(model)
    if args.gradient_checkpointing:
        # its older name is deprecated, and all that transformers 5.21 knows
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    if not is_locked and (args.cache_image_features or args.num_views):
        raise ValueError("`--cache_image_features` and `--num_views` are for a locked image tower.")
    if args.num_views and args.min_crop_scale == 1:
        raise ValueError(f"`--num_views {args.num_views}` needs crops: give a `--min_crop_scale` below 1.")
    crop = None
    if (args.num_views or not is_locked) and args.min_crop_scale < 1:
        crop = RandomResizedCrop(
            model.vision_model.embeddings.image_size,
            scale=(args.min_crop_scale, 1.0),
            interpolation=InterpolationMode.BICUBIC,
        )

    # Samples and batches
    num_views = (args.num_views or 1) if is_locked else None
    samples = CaptionedImages(train_data, args, reader, crop, num_views)
    if samples.num_long_captions == 0 and text_config.num_corner_tokens > 0:
        model.text_model.embeddings.corner_tokens.requires_grad_(False)  # no caption has them
    if args.streaming:
        batches = StreamedBatches(
            train_data,
            args.per_device_train_batch_size,
            args.seed,
            args.image_column,
            accelerator,
            args.shuffle_buffer_size,
        )
    else:
        batches = GlobalBatches(
            num_samples,
            args.per_device_train_batch_size,
            args.seed,
            accelerator.process_index,
            accelerator.num_processes,
        )
    own_samples = None if num_samples is None else math.ceil(num_samples / accelerator.num_processes)
    bad_samples = BadSamples(args.max_bad_fraction, args.max_bad_in_a_row, own_samples)
    unmatched_keys = UnmatchedKeys()
    loader = DataLoader(
        samples,
        batch_sampler=batches,
        collate_fn=Collator(processor, args.max_length),
        num_workers=args.dataloader_num_workers,
        persistent_workers=args.dataloader_num_workers > 0,
        worker_init_fn=leave_signals_to_the_main_process,
        generator=torch.Generator(),  # leaves the global random state to dropout: a resumed run draws the same
    )

    # Optimization
    optimizer = torch.optim.AdamW(
        parameter_groups(model, args.weight_decay),
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        fused=True,
    )
    max_train_steps = args.max_train_steps
    if max_train_steps is None:
        max_train_steps = max(1, len(batches) * args.num_train_epochs // args.gradient_accumulation_steps)
    scheduler = get_scheduler(args.lr_scheduler_type, optimizer, args.warmup_steps, max_train_steps)
    progress = Progress(
        settings={
            "global_batch_size": global_batch_size,
            "num_processes": accelerator.num_processes,
            "num_samples": num_samples,
            "is_locked": is_locked,
            "mixed_precision": accelerator.mixed_precision,
            **{name: getattr(args, name) for name in RESUMED_SETTINGS},
        }
    )

    if accelerator.is_main_process:
        reader.report_keys(train_data)
        eval_reader.report_keys(eval_data)
    if args.cache_image_features:
        views = (args.seed, args.min_crop_scale) if crop is not None else None
        samples.image_features = cache_image_features(
            model.vision_model.to(accelerator.device),
            processor.image_processor,
            samples.load_image,
            num_samples,
            num_views,
            data_key=(compute_fingerprint(train_data, args.image_column), views),
            folder=args.image_features_dir or Path(HF_HOME) / "lotlip" / "image_features",
            accelerator=accelerator,
            batch_size=args.per_device_eval_batch_size,
            num_workers=args.dataloader_num_workers,
            output="last_hidden_state" if OBJECTIVES[args.objective].is_token_wise else "pooler_output",
        )
        logger.info(f"Image features from {samples.image_features.path}: the image tower does not run in training.")

    if checkpoint is not None:
        progress.check_settings(read_state(checkpoint)["progress"]["settings"])
    # From here on the output folder is this run's
    if accelerator.is_main_process:
        if not goes_on_in_output_dir(args):
            for path in find_leftovers(args.output_dir):
                path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path)
        elif checkpoint is not None:
            set_aside_later_checkpoints(args.output_dir, checkpoint)
        args.output_dir.mkdir(parents=True, exist_ok=True)
    accelerator.wait_for_everyone()
    if accelerator.is_fsdp2:
        # a scalar cannot be sharded, and need not be averaged: every process has the gradient of the whole loss for it
        accelerator.state.fsdp_plugin.ignored_modules = [torch.nn.ParameterList(scalars_of(model).values())]
    model, optimizer = accelerator.prepare(model, optimizer)
    set_seed(args.seed, device_specific=True)
    if checkpoint is not None:
        load_checkpoint(accelerator, checkpoint, progress, scheduler)
        logger.info(f"Going on from {checkpoint}, at step {progress.step}.")

    num_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    logger.info(
        f"{num_samples or 'A stream of'} training images, {global_batch_size} in a batch, {max_train_steps} steps."
    )
    logger.info(f"{num_parameters:,} trained parameters, image tower {'locked' if is_locked else 'trained'}.")
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    if accelerator.is_main_process:
        write_json(args.output_dir / SETTINGS_FILE, {**settings, "num_processes": accelerator.num_processes})
    if args.with_tracking:
        simple = {name: value for name, value in settings.items() if isinstance(value, (int, float, str, bool))}
        accelerator.init_trackers("lotlip", simple)
    metrics = MetricsLog(accelerator, args.output_dir, progress)

    def evaluate() -> dict[str, float]:
        """Results on the evaluation data, on the main process; it keeps the model if they are the best so far."""
        evaluated_model = whole_model(model, args, accelerator)
        label_column = args.label_column if class_names is not None else None
        embedded = embed_dataset(
            evaluated_model,
            processor,
            eval_data,
            eval_reader,
            args.image_column,
            label_column,
            batch_size=eval_args.batch_size,
            max_length=args.max_length,
            num_workers=args.dataloader_num_workers,
        )
        progress.evaluated_step = progress.step
        results = {}
        if accelerator.is_main_process:
            results = measure_retrieval(embedded, eval_args.distinct_short_captions)
            if class_names is not None:
                evaluated_model.eval()
                class_embeds = embed_classes(
                    evaluated_model, processor, class_names, args.templates, eval_args.batch_size, args.max_length
                )
                classified = classify(embedded.image_embeds, embedded.labels, class_embeds, class_names)
                results |= {f"zero_shot_{name}": classified[name] for name in ("top1", "top5")}
            metrics.write(results, progress.step)
            tqdm.write(f"Step {progress.step}:\n{format_table(results)}")
            if class_names is not None:
                tqdm.write("zero-shot top-1 {zero_shot_top1:.1f}, top-5 {zero_shot_top5:.1f}".format(**results))
            if progress.is_best(results, args.metric_for_best_model, args.output_dir / "best"):
                save_model(args, args.output_dir / "best", evaluated_model, processor, results)
        return results

    def is_evaluation_due() -> bool:
        is_at_end = progress.step in (0, max_train_steps)  # where it has its own place
        return progress.step % args.eval_steps == 0 and progress.evaluated_step < progress.step and not is_at_end

    def set_train_mode() -> None:
        model.train()
        if is_locked:
            accelerator.unwrap_model(model).vision_model.eval()

    def count_bad_samples() -> tuple[Counter, list[int]]:
        """By cause, since the beginning of the training; and by process, since it was started here."""
        parts = gather_object([bad_samples.causes])
        return sum(parts, start=Counter(progress.bad_causes)), [part.total() for part in parts]

    def save_state() -> None:
        saved = replace(progress, bad_causes=dict(count_bad_samples()[0]))
        save_checkpoint(accelerator, args, saved, scheduler)
        progress.saved_step = saved.saved_step

    def update() -> tuple[bool, float]:
        """Takes the optimizer's step, unless loss or gradients are not finite; whether it did, and their norm."""
        norm = float(accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm or math.inf))
        is_finite = math.isfinite(loss.item()) and math.isfinite(norm)
        if is_finite or accelerator.scaler is not None:  # which looks for infinite gradients itself
            optimizer.step()  # also clamps logit_scale: see `modeling_lotlip`
            is_finite = not accelerator.optimizer_step_was_skipped
        optimizer.zero_grad()
        return is_finite, norm

    def count_skipped_step() -> None:
        """Says that a step was skipped, or after too many in a row with which rows, and ends the run."""
        progress.skipped_steps += 1
        progress.skipped_in_a_row += 1
        logger.warning(f"Step {progress.step + 1} is skipped: its loss or gradients are not finite.")
        if progress.skipped_in_a_row < args.max_skipped_steps:
            return
        path = args.output_dir / "not_finite.json"
        names = gather_object(amiss["name"])
        if accelerator.is_main_process:
            told = {"step": progress.step + 1, "epoch": progress.epoch, "batch": progress.batch - 1}
            told["samples"] = names
            if not args.streaming:
                first = max(0, progress.batch - args.gradient_accumulation_steps)
                rows = slice(first * batches.global_batch_size, progress.batch * batches.global_batch_size)
                told["rows"] = batches.order()[rows]
            write_json(path, told)
        raise ValueError(
            f"{progress.skipped_in_a_row} steps in a row had a loss or gradients that are not finite. What was in "
            f"the last one is in {path}. Start anew with a lower learning rate, or without those rows."
        )

    bar = tqdm(
        total=max_train_steps, initial=progress.step, unit=" steps", disable=not accelerator.is_local_main_process
    )
    throughput = Throughput(accelerator)
    is_checkpoint_due = False
    if is_evaluation_due():  # the run that goes on here was stopped before it
        evaluate()
    with StopSignal() as stop:
        while progress.step < max_train_steps:
            set_train_mode()
            batches.epoch, batches.first_batch = progress.epoch, progress.batch
            for batch, amiss in loader:
                throughput.count(batch)
                bad_samples.count(amiss["bad"])
                unmatched_keys.count(amiss["unmatched"])
                batch = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
                details = {}
                with accelerator.accumulate(model):
                    loss_function = partial(
                        global_loss, batch=batch, args=args, accelerator=accelerator, details=details
                    )
                    if args.grad_cache_chunk_size is not None:
                        chunk_size = args.grad_cache_chunk_size
                        loss = backward_in_chunks(model, batch, loss_function, chunk_size, accelerator)
                    else:
                        outputs = model(**batch)
                        scalars = scalars_of(accelerator.unwrap_model(model))
                        loss = loss_function(outputs.image_embeds, outputs.text_embeds, **scalars)
                        accelerator.backward(loss)
                    progress.batch += 1
                    if not accelerator.sync_gradients:
                        throughput.end_of_step()
                        continue
                    is_taken, gradient_norm = update()
                    if is_taken:
                        progress.skipped_in_a_row = 0
                    else:
                        count_skipped_step()

                scheduler.step()
                progress.step += 1
                throughput.end_of_step()
                bar.update()
                if progress.step % args.logging_steps == 0 or progress.step == max_train_steps:
                    measured = {
                        "loss": loss.item(),
                        "learning_rate": scheduler.get_last_lr()[0],
                        "logit_scale": accelerator.unwrap_model(model).logit_scale.item(),
                        "gradient_norm": gradient_norm,
                        **throughput.measure(),
                        "memory_gb": peak_memory(accelerator.device),
                        "skipped_steps": progress.skipped_steps,
                        "bad_samples": count_bad_samples()[0].total(),
                    }
                    if accelerator.is_main_process:
                        measured |= measure_slots(**details, num_corner_tokens=text_config.num_corner_tokens)
                        metrics.write(measured, progress.step)
                    bar.set_postfix_str(
                        "loss {loss:.3f}, lr {learning_rate:.1e}, {images_per_second:.0f} images/s".format(**measured)
                    )

                stop_number = stop.on_any_process(accelerator)
                if args.checkpointing_steps not in (None, "epoch"):
                    is_checkpoint_due = progress.step % int(args.checkpointing_steps) == 0
                if is_checkpoint_due or stop_number:
                    save_state()
                    is_checkpoint_due = False
                if is_evaluation_due() and not stop_number:
                    evaluate()
                    set_train_mode()
                    throughput.restart()
                    stop_number = stop.on_any_process(accelerator)
                    if stop_number:
                        save_state()
                if stop_number:
                    bar.close()
                    logger.warning(
                        f"Stopped by {signal.Signals(stop_number).name} after step {progress.step}. Go on with "
                        "`--resume_from_checkpoint latest`."
                    )
                    accelerator.end_training()
                    sys.exit(128 + stop_number)
                if progress.step == max_train_steps:
                    break
            else:
                progress.epoch, progress.batch = progress.epoch + 1, 0
                unmatched_keys.check()
                if args.checkpointing_steps == "epoch" and accelerator.sync_gradients:
                    save_state()
                elif args.checkpointing_steps == "epoch":
                    is_checkpoint_due = True  # once the update that the epoch ended in the middle of is done
    bar.close()
    causes, by_process = count_bad_samples()
    if causes:
        logger.warning(f"{causes.total()} bad samples were skipped: {dict(causes)}; by process {by_process}.")
    unmatched_keys = UnmatchedKeys.sum(gather_object([unmatched_keys]))
    if unmatched_keys.num_unmatched:
        logger.warning(unmatched_keys)

    trained_model = whole_model(model, args, accelerator)
    if accelerator.is_main_process:  # before the evaluation, which may meet a broken image
        save_model(args, args.output_dir, trained_model, processor)
    results = evaluate()
    if accelerator.is_main_process:
        names = save_model(args, args.output_dir, trained_model, processor, results)
        if args.push_to_hub:
            push_model(args, names)
        logger.info(f"The summary of this training is {write_summary(args.output_dir)}.")
    accelerator.wait_for_everyone()  # none takes its leave while another is still saving
    accelerator.end_training()


if __name__ == "__main__":
    main()
