import pytest

from hf_align.collators.demonstrations import read_demonstrations
from hf_align.data.sft.demonstrations import trained_demonstrations
from hf_align.data.sft.rows import standard_rows
from hf_align.errors import UserError

ALPACA = [{"instruction": "Name a gem.", "input": "", "output": "Opal."}]
SHAREGPT = [{"conversations": [{"from": "human", "value": "Name a gem."}, {"from": "gpt", "value": "Opal."}]}]


def test_rows_of_any_layout_are_those_of_its_standard_form(caplog: pytest.LogCaptureFixture) -> None:
    for rows, layout in ((ALPACA, "instruction and output"), (SHAREGPT, "conversations in conversations")):
        expected = read_demonstrations(standard_rows(rows, "train_dataset"), "train_dataset").to_list()
        caplog.clear()
        assert trained_demonstrations(rows, "train_dataset").to_list() == expected
        assert f"train_dataset: recognised {layout}; rows: 1" in caplog.text


def test_rows_in_a_standard_form_stay_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    for rows in ([{"text": "Hi."}], [{"prompt": "Hi", "completion": " there."}]):
        assert trained_demonstrations(rows, "train_dataset").to_list() == rows
    assert not caplog.text
    with pytest.raises(UserError, match=r"^train_dataset has the columns gem, which are no known layout"):
        trained_demonstrations([{"gem": "opal"}], "train_dataset")
