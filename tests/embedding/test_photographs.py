"""Photographs as they are: search, `lotlip embed` and evaluation read the same files, and name the same others."""

import json

import torch

import lotlip
from modeling_lotlip.data.arguments import CaptionArguments, SourceArguments
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.embedding.arguments import InferenceArguments
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.embedding.table import EmbeddingTable
from modeling_lotlip.evaluation.retrieval import embed_dataset
from modeling_lotlip.search.index import find_table, update_table
from tests.helpers import photographs
from tests.helpers.embeddings import embed_images


def test_the_same_files_everywhere(model_dir, tmp_path, monkeypatch, caplog, capsys):
    photographs.shrink_limit(monkeypatch)
    folder = tmp_path / "photos"
    seen, named = photographs.write_photographs(folder)
    model, processor = load_model(str(model_dir), InferenceArguments(device="cpu"))
    (expected,) = embed_images(model, processor, [photographs.make_picture()])

    table = find_table(folder, model, processor, tmp_path / "indices")
    assert update_table(table, folder, model, processor).new == len(seen) + len(named)
    assert {name for name, _ in table.read_signatures()} == {*seen, *named} and set(table.unreadable) == set(named)
    assert all("huge" not in name or "make it smaller" in error for name, error in table.unreadable.items())

    with open(folder / "metadata.jsonl", "w") as file:
        for name in sorted({**seen, **named}):
            file.write(json.dumps({"file_name": name, "caption": name, "name": name}) + "\n")
    options = {"model": model_dir, "dataset_name": "imagefolder", "data_dir": folder, "eval_split": "train"}
    options |= {"output_dir": tmp_path / "out", "only": "images", "key_column": "name", "device": "cpu"}
    assert (
        lotlip.main(["embed", *(str(word) for name, value in options.items() for word in (f"--{name}", value))]) == 0
    )
    assert (
        f"{len(seen)} images, 0 short and 0 long captions; 0 captions were truncated, {len(named)} images could"
        in (capsys.readouterr().out)
    )
    stored = EmbeddingTable(tmp_path / "out")
    assert {key for key, _ in stored.read_signatures()} == {*seen, *named} and set(stored.unreadable) == set(named)

    source = SourceArguments(dataset_name="imagefolder", data_dir=str(folder))
    rows = load_split(source, "train")
    caplog.clear()
    evaluated = embed_dataset(model, processor, rows, RowReader(rows.column_names, CaptionArguments()))
    assert set(evaluated.captions["short"].texts) == set(seen) and evaluated.num_unreadable == len(named)
    assert all(name in caplog.text for name in named)

    coloured = [name for name, image in seen.items() if image.getpixel((0, 0))[0] != image.getpixel((0, 0))[1]]
    embeds = {"index": {name: table.embedding(name) for name in seen}}
    embeds["embed"] = {name: stored.embedding(name) for name in seen}
    embeds["evaluation"] = dict(zip(evaluated.captions["short"].texts, evaluated.image_embeds))
    for where, of_name in embeds.items():
        for name in coloured:
            assert of_name[name] @ expected > 0.995, (where, name)
    # evaluation decodes JPEGs as they are
    images = embed_images(model, processor, [photographs.PIL.Image.open(folder / "plain.jpg")])
    torch.testing.assert_close(embeds["evaluation"]["plain.jpg"], images[0], rtol=0, atol=1e-6)


def test_what_a_folder_was_decoded_as_is_noted(model_dir, tmp_path, capsys):
    def embed(*options: str) -> None:
        lotlip.main(
            ["embed", "--model", str(model_dir), "--output_dir", str(tmp_path / "out"), "--only", "images"]
            + ["--max_eval_samples", "2", "--device", "cpu", *options]
        )

    embed()
    assert EmbeddingTable(tmp_path / "out").settings["exact_decoding"] is False
    embed("--exact_decoding")
    assert "exact_decoding = False, this run has True" in capsys.readouterr().err


def test_a_folder_of_pictures_alone_has_all_of_them(tmp_path):
    """`datasets` would leave out what it has no ending for, without a word."""
    photographs.write_photographs(tmp_path / "photos")
    rows = load_split(SourceArguments(dataset_name="imagefolder", data_dir=str(tmp_path / "photos")), "train")
    assert len(rows) == len(list((tmp_path / "photos").iterdir()))
