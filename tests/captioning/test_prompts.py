"""The prompts that captioners are asked with."""

import pytest

from modeling_lotlip.captioning.prompts import draw_prompt, read_prompts


def test_draws_depend_on_seed_captioner_and_image_alone():
    prompts = [f"prompt {number}" for number in range(1000)]
    arguments = (0, "a.jpg", "llava")
    drawn = draw_prompt(prompts, *arguments)
    assert drawn == draw_prompt(prompts, *arguments)
    others = [
        draw_prompt(prompts, *other) for other in ((1, "a.jpg", "llava"), (0, "b.jpg", "llava"), (0, "a.jpg", "x"))
    ]
    assert len({drawn, *others}) == 4


def test_all_prompts_are_drawn():
    prompts = read_prompts()
    assert len(set(prompts)) == 8
    assert {draw_prompt(prompts, 0, f"{number}.jpg", "llava") for number in range(100)} == set(prompts)


def test_files_of_prompts(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("# mine\n\n  What is there? \nHow many?\n", encoding="utf-8-sig")  # as Windows writes it
    assert read_prompts(file) == ["What is there?", "How many?"]
    file.write_text("# nothing\n")
    with pytest.raises(ValueError, match=f"`--prompts_file {file}` has no prompt: write one in each line."):
        read_prompts(file)
    file.write_bytes("Où ?".encode("latin-1"))
    with pytest.raises(ValueError, match=f"`--prompts_file {file}` cannot be read: 'utf-8' codec"):
        read_prompts(file)
    with pytest.raises(ValueError, match="`--prompts_file nowhere.txt` cannot be read: No such file or directory."):
        read_prompts(tmp_path.relative_to(tmp_path) / "nowhere.txt")
