"""Whatever reads pictures reads them alike: embedding, evaluation, classification, search and training."""

import logging

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import Dataset, Features, Image, Value

from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.images import read_image, undecoded
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.embedding.arguments import LoadingArguments, StoreArguments
from modeling_lotlip.embedding.batches import embed_images
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.embedding.store import embed_to_table
from modeling_lotlip.evaluation.classification import embed_classes, evaluate_zero_shot
from modeling_lotlip.evaluation.retrieval import embed_dataset
from modeling_lotlip.search.index import find_table
from modeling_lotlip.search.searcher import Searcher
from modeling_lotlip.training.arguments import ObjectiveArguments
from modeling_lotlip.training.samples import CaptionedImages


NAMES = ["boat", "car", "sea"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of every mode that a format has, and a torn one."""
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    clear = PIL.Image.fromarray(pixels, "RGBA").resize((64, 48), PIL.Image.Resampling.NEAREST)
    colour, grey = clear.convert("RGB"), clear.convert("L")
    on_its_side = PIL.Image.Exif()
    on_its_side[0x0112] = 6
    colour.save(folder / "a_rgb.png")
    clear.save(folder / "b_rgba.png")
    colour.quantize(16).save(folder / "c_palette.png", transparency=bytes(range(0, 256, 16)))
    clear.convert("LA").save(folder / "d_grey_alpha.png")
    colour.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT).convert("CMYK").save(folder / "e_cmyk.jpg", quality=95)
    PIL.Image.fromarray(np.array(grey).astype(np.uint16) * 257).save(folder / "f_16_bit.png")
    colour.save(folder / "g_on_its_side.jpg", exif=on_its_side, quality=95)
    whole = (folder / "a_rgb.png").read_bytes()
    (folder / "h_torn.png").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def files(folder):
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def dataset(files):
    columns = {
        "image": [{"bytes": None, "path": str(file)} for file in files],
        "caption": [f"a {NAMES[index % 3]} {'red ' * index}" for index in range(len(files))],
        "label": [index % 3 for index in range(len(files))],
    }
    features = Features(image=Image(), caption=Value("string"), label=Value("int64"))
    return Dataset.from_dict(columns, features=features)


@pytest.mark.parametrize("name", ["lotlip", "siglip2"])
def test_pictures_of_all_modes_are_the_same_everywhere(name, folder, files, dataset, family_folders, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    model, processor = load_model(str(family_folders(name)), LoadingArguments(device="cpu"))
    pictures = [read_image({"path": str(file), "bytes": None}) for file in files[:-1]]
    assert all(picture.mode == "RGB" for picture in pictures) and pictures[-1].size == (48, 64)
    expected = torch.cat(
        [embed_images(model, dict(processor.image_processor([picture], return_tensors="pt"))) for picture in pictures]
    )
    # told apart: a wrong mode would be seen
    assert (expected @ expected.t()).fill_diagonal_(0).max() < 1 - 1e-4

    caplog.clear()

    def check(embeds):
        torch.testing.assert_close(embeds, expected, rtol=0, atol=1e-5)
        assert caplog.text.count("h_torn.png") == 1 and caplog.text.count("cannot be read") == 1
        caplog.clear()

    table = embed_to_table(model, processor, dataset, StoreArguments(output_dir=tmp_path / "embeds"), batch_size=3)
    assert table.counts["image"] == len(pictures) and table.counts["unreadable"] == 1
    check(torch.stack([table.embedding(str(number)) for number in range(len(pictures))]))

    reader = RowReader(dataset.column_names, CaptionArguments())
    embedded = embed_dataset(model, processor, dataset, reader, batch_size=3)
    assert embedded.num_unreadable == 1 and len(embedded.captions["short"].texts) == len(pictures)
    check(embedded.image_embeds)

    results = evaluate_zero_shot(model, processor, dataset, NAMES, ["a {}"], batch_size=3)
    classes = embed_classes(model, processor, NAMES, ["a {}"], batch_size=3)
    predictions = (expected @ classes.t()).argmax(dim=1)
    labels = torch.tensor(dataset["label"][: len(pictures)])
    assert results["top1"] == pytest.approx(100 * (predictions == labels).float().mean().item())
    assert results["num_images"] == len(pictures) and results["num_unreadable_images"] == 1
    assert caplog.text.count("h_torn.png") == 1 and caplog.text.count("cannot be read") == 1
    read_labelled, rows = RowReader(["image", "label"], label_column="label"), undecoded(dataset, "image")
    for number, picture in enumerate(pictures):
        (item,) = read_labelled(number, rows[number])
        assert item.content.tobytes() == picture.tobytes()

    table = find_table(folder, model, processor, tmp_path / "indices")
    Searcher(model, processor, table, folder, batch_size=3).update()
    stored = torch.stack([table.embedding(file.name) for file in files[:-1]])
    torch.testing.assert_close(stored, expected, rtol=0, atol=2e-4)  # they are float16
    assert list(table.unreadable) == ["h_torn.png"]

    samples = CaptionedImages(dataset, reader, ObjectiveArguments())
    for number, picture in enumerate(pictures):
        assert samples.load_image(number).tobytes() == picture.tobytes()
    assert samples[0, len(pictures), False]["read"][1] is not None
