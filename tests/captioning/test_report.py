"""What became of captions, and the report on it."""

from modeling_lotlip.captioning.report import MAX_EXAMPLE_LENGTH, NUM_EXAMPLES, Outcomes, format_outcomes, write_report


def test_texts_do_not_break_the_tables(tmp_path):
    outcomes = Outcomes()
    outcomes.numbers["a|b"]["captions"] = 1
    outcomes.reject("a|b", "refusal", "One\ntwo | three")
    report = {"rules": {"refusal": None}, **outcomes.to_dict()}
    assert "| a\\|b | 1 | 0 | 0 | 0 |" in format_outcomes(report).splitlines()
    write_report(report, tmp_path / "report")
    lines = (tmp_path / "report" / "report.md").read_text().splitlines()
    assert "| refusal | a\\|b | One two \\| three | rejected |" in lines


def test_the_first_examples_are_kept_and_long_ones_shortened():
    outcomes = Outcomes()
    outcomes.numbers["llava"]["captions"] = 20
    for number in range(NUM_EXAMPLES + 1):
        outcomes.reject("llava", "lists", f"{number}")
        outcomes.change("llava", ["lists"], f"{number} before", "x" * MAX_EXAMPLE_LENGTH + "y")
    examples = outcomes.to_dict()["examples"]
    rejected = [example["before"] for example in examples if example["after"] is None]
    changed = [example["after"] for example in examples if example["after"] is not None]
    assert rejected == [str(number) for number in range(NUM_EXAMPLES)] and len(changed) == NUM_EXAMPLES
    half = MAX_EXAMPLE_LENGTH // 2
    assert changed[0] == "x" * half + " [...] " + "x" * (half - 1) + "y"
