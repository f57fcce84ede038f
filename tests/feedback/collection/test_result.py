from hf_align.feedback import CollectionConfig, PreferenceStore, collect

TEXTS = {"polite": "Of course, gladly.", "curt": "No, I won't."}


def test_a_collection_that_nobody_has_answered_is_told_in_words():
    config = CollectionConfig(responses_per_prompt=2, min_responses=2, annotators_per_task=1, max_annotators=1)
    models = {name: lambda prompts, text=text: [text] * len(prompts) for name, text in TEXTS.items()}
    rows = [{"prompt": f"May I ask question {number}?"} for number in range(3)]
    result = collect(PreferenceStore("sqlite://"), config, models, ["anna"], 2, prompts=rows, wait=False)
    assert str(result).splitlines()[1:] == ["2 tasks waiting for answers", "anna (person): 0 answers"]
