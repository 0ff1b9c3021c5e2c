"""What became of captions, and the report on it."""

from modeling_lotlip.captioning.report import MAX_EXAMPLE_LENGTH, NUM_EXAMPLES, Outcomes, format_outcomes, write_report


def test_texts_do_not_break_the_tables(tmp_path):
    outcomes = Outcomes()
    outcomes.num_captions["a|b"] = 1
    outcomes.reject("a|b", "refusal", "One\ntwo | three")
    report = {"rules": {"refusal": None}, **outcomes.to_dict()}
    assert "| a\\|b | 1 | 0 | 0 |" in format_outcomes(report).splitlines()
    write_report(report, tmp_path / "report")
    lines = (tmp_path / "report" / "report.md").read_text().splitlines()
    assert "| a\\|b | One two \\| three | rejected |" in lines


def test_the_first_examples_are_kept_and_long_ones_shortened():
    outcomes = Outcomes()
    for number in range(NUM_EXAMPLES + 1):
        outcomes.reject("llava", "lists", f"{number}")
        outcomes.change("llava", ["lists"], f"{number} before", "x" * MAX_EXAMPLE_LENGTH + "y")
    examples = outcomes.to_dict()["examples"]["lists"]["llava"]
    rejected = [example["rejected"] for example in examples if "rejected" in example]
    changed = [example for example in examples if "before" in example]
    assert rejected == [str(number) for number in range(NUM_EXAMPLES)] and len(changed) == NUM_EXAMPLES
    half = MAX_EXAMPLE_LENGTH // 2
    assert changed[0]["after"] == "x" * half + " [...] " + "x" * (half - 1) + "y"


def test_captions_are_counted_by_captioner():
    outcomes = Outcomes()
    assert not outcomes.is_any_kept()
    outcomes.num_captions.update(["llava"] * 4 + ["blip"])
    outcomes.num_failed["llava"] = 1
    outcomes.reject("llava", "refusal", "No.")
    outcomes.reject("blip", "refusal", "No.")
    assert outcomes.count_kept("llava") == 2 and outcomes.count_kept("blip") == 0 and outcomes.is_any_kept()
