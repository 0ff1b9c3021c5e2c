# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
LoTLIP in MTEB, the benchmark of embeddings: a model of its image-text tasks.

    python examples/mteb_model.py --model_name_or_path outputs/demo --output_dir outputs/mteb \
        --tasks Flickr30kI2TRetrieval Flickr30kT2IRetrieval

MTEB downloads the data from the Hub, keeps results in `--output_dir`, and computes only those that are not there yet.
It evaluates models of sentence-transformers by itself; what it cannot know of a folder is that this one reads images.
"""

from dataclasses import dataclass
from pathlib import Path

import mteb
from mteb.models import SentenceTransformerEncoderWrapper
from mteb.results import ModelResult
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig

import modeling_lotlip  # noqa: F401 registers LoTLIP with the Auto classes
from modeling_lotlip.arguments import Arguments, argument, parse, report_mistakes
from modeling_lotlip.embedding.models import check_single_embeddings
from modeling_lotlip.loading_lotlip import find_pretrained


@dataclass
class MtebArguments(Arguments):
    model_name_or_path: str = argument(help="A LoTLIP model, a Hub id or a folder.", aliases=("--model",))
    tasks: list[str] = argument(help="Names of MTEB's tasks.")
    output_dir: Path = argument(help="Where MTEB keeps the results.")
    trust_remote_code: bool = argument(False, "Run the code that comes with the model.")
    device: str | None = argument(None, "Such as `cpu` or `cuda:0`. Default: an accelerator if there is one.")
    batch_size: int = argument(64, "Images or texts in a batch.", least=1)


def load_mteb_model(
    model_name_or_path: str, device: str | None = None, trust_remote_code: bool = False
) -> SentenceTransformerEncoderWrapper:
    """
    Loads a model for `mteb.evaluate`.

    Args:
        model_name_or_path (`str`):
            A LoTLIP model, a Hub id or a folder.
        device (`str`, *optional*):
            Such as `cpu` or `cuda:0`; by default an accelerator if there is one.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Whether to run the code that comes with a model.

    Returns:
        `SentenceTransformerEncoderWrapper`: the model. Its name in the results is the Hub id, or `local/FOLDER`.

    Raises:
        `ValueError`: if the model compares tokens, and so has no single embedding of a text or an image.
    """
    source = str(find_pretrained(model_name_or_path))
    check_single_embeddings(AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code))
    model = SentenceTransformer(source, device=device, trust_remote_code=trust_remote_code)
    wrapper = SentenceTransformerEncoderWrapper(model)
    path = Path(model_name_or_path)
    wrapper.mteb_model_meta = wrapper.mteb_model_meta.model_copy(
        update={
            "name": f"local/{path.resolve().name}" if path.exists() else model_name_or_path,
            "modalities": model.modalities,
        }
    )
    return wrapper


def format_table(tasks: list[mteb.AbsTask], results: ModelResult) -> str:
    """The main score of each task as a Markdown table."""
    metrics = {task.metadata.name: task.metadata.main_score for task in tasks}
    lines = ["| task | metric | score |", "| --- | --- | ---: |"]
    for result in results:
        lines.append(f"| {result.task_name} | {metrics[result.task_name]} | {result.get_score():.4f} |")
    return "\n".join(lines)


def main() -> None:
    (args,) = parse((MtebArguments,), description=__doc__)
    try:
        tasks = mteb.get_tasks(tasks=args.tasks)
    except KeyError as error:
        raise ValueError(f"--tasks: {error.args[0]}") from error
    results = mteb.evaluate(
        load_mteb_model(args.model_name_or_path, args.device, args.trust_remote_code),
        tasks,
        encode_kwargs={"batch_size": args.batch_size},
        cache=mteb.ResultCache(args.output_dir),
    )
    print(format_table(tasks, results))


if __name__ == "__main__":
    with report_mistakes("mteb_model.py"):
        main()
