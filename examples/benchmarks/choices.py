# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The measurements behind choices that the code does not show: what the corner tokens cost inside the text, what a fused
optimizer saves, what int8 gains and loses on a CPU.

    python examples/benchmarks/choices.py
"""

import copy
import warnings
from dataclasses import dataclass
from functools import partial

import torch
from scaffold.original import build_lotlip
from scaffold.timing import TowerBenchmarkArguments, measure, report, set_up, write_results
from torch import nn
from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

from modeling_lotlip import LotlipModel
from modeling_lotlip.arguments import argument, exit_on_error, parse


@dataclass
class ChoicesArguments(TowerBenchmarkArguments):
    """What is measured."""

    text_model_name_or_path: str | None = argument(
        None, "A trained BERT, for int8: random weights are too easy. Default: random weights."
    )
    texts: int = argument(8, "Texts in a batch.", least=1)
    length: int = argument(122, "Tokens of a text.", least=2)


def train_texts(model: LotlipModel, input_ids: torch.Tensor, output_corner_tokens: bool) -> None:
    """Forward and backward pass of the text tower."""
    features = model.get_text_features(input_ids, output_corner_tokens=output_corner_tokens)
    loss = features.pooler_output.sum()
    if output_corner_tokens:
        loss = loss + features.corner_pooler_output.sum()
    loss.backward()


def measure_corner_tokens(model: LotlipModel, input_ids: torch.Tensor, args: ChoicesArguments) -> dict:
    """What the corner tokens cost inside the text."""
    variants = {
        "without corner tokens": lambda: train_texts(model, input_ids, False),
        "with corner tokens": lambda: train_texts(model, input_ids, True),
    }
    seconds = measure(variants, args.repeats, args.device)
    title = f"Forward and backward of {args.texts} texts of {args.length} tokens"
    return report(title, seconds, "without corner tokens", args)


def measure_optimizers(model: LotlipModel, args: ChoicesArguments) -> dict:
    """What a fused optimizer saves."""
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    plain, fused = (torch.optim.AdamW(parameters, lr=0.0, fused=is_fused) for is_fused in (False, True))
    seconds = measure({"AdamW": plain.step, "fused AdamW": fused.step}, args.repeats, args.device)
    title = f"Update of {sum(map(torch.numel, parameters)) / 1e6:.0f} million parameters"
    return report(title, seconds, "AdamW", args)


@torch.inference_mode()
def measure_int8(model: LotlipModel, input_ids: torch.Tensor, args: ChoicesArguments) -> dict:
    """What int8 gains and loses on a CPU."""
    warnings.filterwarnings("ignore", message=".*deprecated.*")  # torch means to move it to torchao
    models = {"float32": model, "bfloat16": copy.deepcopy(model).bfloat16()}
    models["int8"] = quantize_dynamic(model, {nn.Linear: per_channel_dynamic_qconfig}, dtype=torch.qint8)
    variants = {name: partial(ours.get_text_features, input_ids) for name, ours in models.items()}
    embeds = {name: compute().pooler_output for name, compute in variants.items()}
    seconds = measure(variants, args.repeats, args.device)
    table = report(f"Features of {args.texts} texts of {args.length} tokens", seconds, "float32", args)
    cosines = {
        name: torch.cosine_similarity(embeds["float32"], values.float()).min().item()
        for name, values in embeds.items()
    }
    print("\nLeast cosine to float32: " + ", ".join(f"{name} {value:.4f}" for name, value in cosines.items()))
    return {**table, "least_cosine": cosines}


def main() -> None:
    (args,) = parse((ChoicesArguments,), description=__doc__)
    set_up(args)
    model = build_lotlip(args.layers, args.device)
    input_ids = torch.randint(1000, 30000, (args.texts, args.length), device=args.device)
    tables = [measure_corner_tokens(model, input_ids, args), measure_optimizers(model, args)]
    if args.device == "cpu":
        if args.text_model_name_or_path is not None:
            model = LotlipModel.from_vision_text_pretrained(None, args.text_model_name_or_path, projection_dim=768)
        tables.append(measure_int8(model, input_ids, args))
    write_results(tables, args)


if __name__ == "__main__":
    with exit_on_error("choices.py"):
        main()
