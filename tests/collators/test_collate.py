import pytest
import torch
from accelerate.utils import find_batch_size

from hf_align.collators import PreferenceCollator, find_pad_token_id
from hf_align.errors import UserError
from hf_align.layout.branches import Branches

ROWS = [
    {"prompt_ids": [1, 2], "response_ids": [[3, 9], [4, 5, 9]]},
    {"prompt_ids": [1], "response_ids": [[6, 7, 9], [9]]},
]


def test_responses_are_branches_in_the_row_s_order():
    batch = PreferenceCollator(pad_token_id=9)(ROWS)
    branches: Branches = batch["branches"]
    assert branches.input_ids.tolist() == [[1, 2, 3, 9, 4, 5, 9], [1, 6, 7, 9, 9, 9, 9]]
    assert branches.branch_ids.tolist() == [[0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 2, -1, -1]]  # pad = EOS doesn't matter
    assert branches.targets.tolist() == [3, 9, 4, 5, 9, 6, 7, 9, 9]
    assert branches.lengths().tolist() == [2, 3, 3, 1]


def test_optional_columns_come_in_order_behind_the_weights():
    extra = {"margin": 0.5, "ref_logps": [-1.0, -2.0], "index": 7, "weight": 3}
    batch = PreferenceCollator(pad_token_id=0)([row | extra for row in ROWS])
    assert list(batch) == ["weight", "margin", "ref_logps", "index", "branches"]
    assert batch["weight"].tolist() == [3.0, 3.0]
    assert batch["margin"].tolist() == [0.5, 0.5]
    assert batch["ref_logps"].tolist() == [-1.0, -2.0] * 2
    assert batch["index"].tolist() == [7, 7]
    assert batch["weight"].dtype == batch["margin"].dtype == batch["ref_logps"].dtype == torch.float32
    assert batch["index"].dtype == torch.int64


def test_without_them_there_are_only_unit_weights():
    batch = PreferenceCollator(pad_token_id=0)(ROWS)
    assert list(batch) == ["weight", "branches"]
    assert batch["weight"].tolist() == [1.0, 1.0]


def test_accelerate_counts_pairs_when_rows_are_packed():
    batch = PreferenceCollator(pad_token_id=0, row_tokens=32)(ROWS)
    assert batch["branches"].input_ids.shape[0] == 1
    assert find_batch_size(batch) == 2


def test_rows_may_have_any_number_of_responses():
    rows = [
        {"prompt_ids": [1], "response_ids": [[2]] * count, "ref_logps": [-float(count)] * count} for count in (1, 3, 2)
    ]
    batch = PreferenceCollator(pad_token_id=0)(rows)
    assert batch["branches"].num_responses == (1, 3, 2)
    assert batch["ref_logps"].tolist() == [-1, -3, -3, -3, -2, -2]
    assert batch["weight"].shape == (3,)


def test_padding_falls_back_on_eos(bos_tokenizer, make_tokenizer, tokenizer):
    assert find_pad_token_id(bos_tokenizer) == bos_tokenizer.eos_token_id
    assert find_pad_token_id(tokenizer) == tokenizer.pad_token_id
    neither = make_tokenizer()
    neither.eos_token = None
    with pytest.raises(UserError, match="neither a pad nor an EOS"):
        find_pad_token_id(neither)
