"""The commands for the published captions, of the page "Data", run on small copies of the layouts."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
from transformers import ViTImageProcessor

import lotlip
from modeling_lotlip.data.scenes import load_scenes
from tests.conftest import ROOT
from tests.helpers.data_files import write_shard
from tests.helpers.photographs import encode
from tests.helpers.towers import WORDS, save_bert, save_vit


PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8").replace("\\\n", " ")
SECTION = PAGE.partition("## The published captions")[2]
(CC3M,) = (line for line in SECTION.splitlines() if line.startswith("lotlip train"))
# as the page says, with names of another collection
LAION = CC3M.replace("cc3m_3long_3short_1raw_captions_url.csv", "laion_1_3long_captions.csv")
LAION = LAION.replace("cc3m", "laion").replace('"Image Path"', "url")
# as DreamLIP publishes them
(HEADER,) = (line.split(",") for line in SECTION.splitlines() if line.startswith("Image Path,"))
SMALL = "--max_train_steps 2 --per_device_train_batch_size 4 --max_eval_samples 4 --warmup_steps 0 --logging_steps 1"


def write_scenes(path: Path, first: int) -> list[dict]:
    """Scenes as img2dataset packs them; the row of each in the file of captions."""
    path.parent.mkdir()
    rows = []
    members = {}
    for number, scene in enumerate(load_scenes(10, seed=first), start=first):
        url = f"https://x.org/{number}.jpg?size=1,2"
        about = json.dumps({"url": url, "key": f"{number:09}", "status": "success"}).encode()
        files = {"jpg": encode(scene["image"]), "txt": scene["caption"].encode(), "json": about}
        members |= {f"{number:09}.{ending}": content for ending, content in files.items()}
        # commas, quotation marks and line breaks, as captions have them
        long = f'{scene["long_captions"][0]}. "A scene", it says.\nThe end'
        rows.append({"url": url, **{name: long if "long" in name else scene["caption"] for name in HEADER[1:]}})
    write_shard(path, members)
    return rows


@pytest.mark.parametrize("command", [CC3M, LAION], ids=["cc3m", "laion"])
def test_published_captions_train(command, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    save_bert(tmp_path / "bert", WORDS, len(WORDS))
    save_vit(tmp_path / "vit", ViTImageProcessor(size={"height": 32, "width": 32}))
    command = command.replace("google/vit-base-patch16-224-in21k", "vit")
    words = shlex.split(command.replace("google-bert/bert-base-uncased", "bert"))
    name = re.search(r"outputs/(\w+)", command)[1]
    rows = write_scenes(Path(name, "00000.tar"), 0) + write_scenes(Path(f"{name}_held_back", "00000.tar"), 100)
    key = words[words.index("--file_key_column") + 1]
    with open(words[words.index("--caption_files") + 1], "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [key, *HEADER[1:]])
        writer.writeheader()
        writer.writerows({key: row.pop("url"), **row} for row in rows)

    assert lotlip.main([*words[1:], *SMALL.split()]) == 0
    results = json.loads(Path("outputs", name, "eval_results.json").read_text())
    # three long captions of each, of which equal ones are one text
    assert results["long_num_images"] == results["short_num_images"] == 4
    assert results["long_num_captions"] == 4
    measured = Path("outputs", name, "metrics.jsonl").read_text()
    assert '"loss_corner_2"' in measured
    assert "have no captions in `--caption_files`" not in capfd.readouterr().err
