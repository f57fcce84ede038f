from hf_align.data import inspect_preferences
from hf_align.data.inspection.findings import Finding
from hf_align.data.inspection.valid import Verdicts


def finding(kind: str, severity: str, rows: list[int], drop: list[int] | None = None) -> Finding:
    return Finding(kind, severity, rows, "", "", "", drop=drop or [])  # type: ignore[arg-type]


def test_errors_telling_warnings_and_dropped_rows_are_invalid_with_the_reason() -> None:
    findings = [
        finding("empty_response", "error", [2]),
        finding("low_agreement", "warning", [0, 2]),
        finding("duplicate_pair", "warning", [1, 4], drop=[4]),
        finding("length_bias", "warning", []),
        finding("style", "note", [3]),
    ]
    verdicts = Verdicts(findings, 5, {"low_agreement": 0.7})
    assert list(verdicts) == [
        (False, "low_agreement (below 0.7)"),
        (True, ""),
        (False, "empty_response, low_agreement (below 0.7)"),
        (True, ""),
        (False, "duplicate_pair"),
    ]
    assert verdicts.valid_rows == [1, 3] and verdicts[-1] == (False, "duplicate_pair") and len(verdicts[1:3]) == 2


def test_rows_of_an_inspection_are_valid_by_agreement_and_margin() -> None:
    rows = [
        {"prompt": "p", "chosen": f" a{n}.", "rejected": f" b{n}.", "votes": votes, "margin": margin}
        for n, (votes, margin) in enumerate([([1, 1, 1], 1.0), ([1, 0, 1], 1.0), ([1, 1, 1], 0.1), ([1, 0], 0.0)])
    ]
    inspection = inspect_preferences(rows)
    assert [valid for valid, _ in inspection.valid] == [True, False, False, False]
    assert inspection.valid[1][1] == "low_agreement (below 0.7)"
    assert inspection.valid[2][1] == "small_margin (below 0.2)"
    assert all(valid for valid, _ in list(inspect_preferences(rows, min_agreement=0.3, min_margin=0.05).valid)[:3])
