"""Draw the picture of the annotation page, docs/images/annotate.png: `python -m docs.make_annotate`.

A page as it is served, with sentences of the embedded ratings in a store of its own; needs playwright and chromium.
"""

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from hf_align.data.embedded.ratings import Domain, load_ratings
from hf_align.feedback import PreferenceStore, Prompt, Response, Task, annotate

IMAGE = Path(__file__).parent / "images" / "annotate.png"
SUBJECTS: dict[Domain, str] = {"movies": "a movie", "products": "a digital camera or another product"}


def fill(store: PreferenceStore) -> None:
    """Add pairs of embedded sentences as responses to prompts."""
    for domain, subject in SUBJECTS.items():
        prompt = Prompt(
            f"Write **one sentence** of a review of {subject}.\n\n- It should be *kind*.\n- It should be finished.",
            domain=domain,
        )
        texts = [text for text in load_ratings("test", domain)["text"] if 60 < len(text) < 220][:12]
        responses = [Response(prompt.id, text, "people") for text in texts]
        tasks = [Task.of(*pair) for pair in zip(responses[::2], responses[1::2], strict=True)]
        store.add(prompts=[prompt], responses=responses, tasks=tasks)


def main() -> None:
    """Answer a few tasks and take the picture."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        store = PreferenceStore(f"sqlite:///{folder}/prefs.db")
        fill(store)
        page = annotate(store, annotator="anna")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1000, "height": 760})
        tab.goto(page.url)
        tab.wait_for_selector("#left")
        for key in "1213":
            tab.wait_for_timeout(350)
            before = tab.evaluate("hfAlignShowing()")
            tab.keyboard.press(key)
            tab.wait_for_function("before => hfAlignShowing() !== before", arg=before)
        tab.click("#confidence label:has-text('fairly sure')")
        tab.fill("#reason textarea", "It says more about the film itself.")
        tab.wait_for_timeout(350)
        tab.screenshot(path=IMAGE)
        browser.close()
        page.close()
        store.close()


if __name__ == "__main__":
    main()
