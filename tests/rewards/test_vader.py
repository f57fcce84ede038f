"""VADER as a judge."""

from hf_align.rewards.vader import vader_judge, vader_scores


def test_vader_knows_good_from_bad():
    good, bad, neutral = vader_scores(["I love this wonderful film!", "A horrible, boring mess.", "A film."])
    assert good > 0.5 and bad < -0.5 and neutral == 0.0
    assert vader_judge(["How was it?"], ["A film."]) == [0.0]
