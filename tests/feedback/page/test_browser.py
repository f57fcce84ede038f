"""The page in Chromium: scripted people lose nothing, texts run nothing, other sites can't answer, keys are enough."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.feedback.browser.blocks import judge_block, run_block, run_blocks, sum_up
from benchmarks.feedback.browser.ledger import Ledger, compare, read_store
from benchmarks.feedback.browser.server import PageServer
from benchmarks.feedback.browser.tab import PATIENCE, Tab, chromium, open_browser
from benchmarks.feedback.browser.tasks import fill
from hf_align.feedback import PreferenceStore, Prompt, Response, Task

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no chromium is installed"),
]

SCRIPT = "window.ran = 1"
HOSTILE = (
    f"<script>{SCRIPT}</script>",
    f"<img src=x onerror='{SCRIPT}'><svg onload='{SCRIPT}'></svg>",
    f"<iframe srcdoc='<script>parent.{SCRIPT}</script>'></iframe>",
    f"[link](javascript:{SCRIPT}) <a href='javascript:{SCRIPT}'>here</a> <javascript:{SCRIPT}>",
    f"[data](data:text/html,<script>{SCRIPT}</script>)",
    f"${{{SCRIPT}}} {{{{ {SCRIPT} }}}} {{% {SCRIPT} %}} `${{{SCRIPT}}}`",
    f"$\\href{{javascript:{SCRIPT}}}{{x}}$ $$\\unicode{{<script>{SCRIPT}</script>}}$$",
    f"```html\n</code></pre><script>{SCRIPT}</script>\n```",
    "![pixel](ELSEWHERE/pixel.png) <img src='ELSEWHERE/other.png'> <link rel=stylesheet href='ELSEWHERE/style.css'>",
    "<meta http-equiv=refresh content='0;url=ELSEWHERE/'><base href='ELSEWHERE/'>",
    "<form action='ELSEWHERE/'><button id='choose-left'>x</button></form><div class='task' data-showing='fake'></div>",
    "</div></section></div><style>* { display: none }</style>",
    "<textarea>&lt;script&gt; &#x3C;script&#x3E; \u202e \u0000",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab of somebody with a browser of their own."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """Another site: its address and the paths that were asked for."""
    asked: list[str] = []

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<p id='mark'>another site</p>")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    with PageServer(tmp_path_factory.mktemp("page")) as server:
        yield server


def add_texts(store: PreferenceStore, texts: tuple[str, ...]) -> None:
    """A task of each text, which stands in the prompt and in both responses."""
    for number, text in enumerate(texts):
        prompt = Prompt(f"{number} {text}")
        responses = [Response(prompt.id, f"{which} {text}", "model") for which in ("one", "other")]
        store.add(prompts=[prompt], responses=responses, tasks=[Task.of(*responses, wanted=1)])


def test_ten_sessions_of_two_people_lose_double_and_swap_nothing(browser: Browser, tmp_path: Path) -> None:
    run_block(browser, tmp_path, range(10))
    figures = judge_block(tmp_path)
    assert not any(figures["differences"].values()), figures["examples"]
    assert figures["stuck"] == [] and figures["server_errors"] == 0
    assert figures["events"] > 60 and figures["starts"] == 5  # two sessions kill a server, two more kill it in flight


@pytest.mark.soak
def test_two_hundred_sessions_lose_double_and_swap_nothing_and_sides_are_balanced(tmp_path: Path) -> None:
    figures = sum_up([judge_block(folder) for folder in run_blocks(tmp_path, 200)])
    assert not any(figures["differences"].values()), figures["examples"]
    assert figures["stuck"] == [] and figures["server_errors"] == 0
    assert figures["left_share"] == pytest.approx(0.5, abs=0.02)


def test_no_text_runs_code_or_loads_anything_or_changes_the_page(
    server: PageServer, page: Page, elsewhere: tuple[str, list[str]]
) -> None:
    other, asked = elsewhere
    texts = tuple(text.replace("ELSEWHERE", other) for text in HOSTILE)
    add_texts(server.store, texts)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog opened: {dialog.message}"))
    page.goto(f"{server.url}/?annotator=hostile")
    for number in range(len(texts)):
        page.wait_for_function(f"document.getElementById('prompt')?.innerText.startsWith('{number} ')")
        page.wait_for_timeout(1000 * PATIENCE)
        assert page.evaluate("window.ran") is None, texts[number]
        assert page.locator("#choose-left").count() == page.locator(".task").count() == 1, texts[number]
        assert page.locator("#task :is(script, img, iframe, svg, style, form, meta, base, link, textarea)").count() == 0
        links = page.locator("#task a").evaluate_all("links => links.map(link => link.href)")
        assert [link for link in links if not link.startswith(("http", "mailto:"))] == []
        if "<script>" in texts[number]:
            assert "<script>" in page.inner_text("#left"), "it is shown as it stands"
        page.click("#skip")
    page.wait_for_selector(".notice")
    assert asked == [] and [url for url in requests if not url.startswith((server.url, "data:"))] == []
    assert [event.kind for event in server.store.events()] == ["skip"] * len(texts)


def test_posts_from_another_site_change_nothing_and_get_no_answer(
    server: PageServer, browser: Browser, elsewhere: tuple[str, list[str]]
) -> None:
    add_texts(server.store, ("Post 1", "Post 2"))
    context = browser.new_context()
    page, attacker = context.new_page(), context.new_page()
    sent: list[tuple[str, str]] = []

    def keep(route: Route) -> None:
        sent.append((route.request.url, route.request.post_data or ""))
        route.abort()

    page.goto(f"{server.url}/?annotator=victim")
    page.wait_for_selector("#left")
    page.wait_for_timeout(1000 * PATIENCE)
    page.route(lambda url: "/gradio_api/" in url, keep)
    page.click("#choose-left")
    page.wait_for_timeout(500)
    [(url, body)] = [(url, body) for url, body in sent if body and "run" in url]
    before = len(list(server.store.events()))
    attacker.goto(elsewhere[0])
    tried = attacker.evaluate(
        """async ([url, body]) => {
            const results = [];
            for (const options of [
                {mode: "no-cors", headers: {"Content-Type": "text/plain"}},
                {mode: "cors", headers: {"Content-Type": "text/plain"}},
                {mode: "cors", headers: {"Content-Type": "application/json"}},
                {mode: "no-cors", credentials: "include"},
            ]) {
                try {
                    const answer = await fetch(url, {method: "POST", body, ...options});
                    results.push(answer.type === "opaque" ? "opaque" : await answer.text());
                } catch (error) { results.push("refused"); }
            }
            navigator.sendBeacon(url, new Blob([body], {type: "text/plain"}));
            const form = document.createElement("form");
            Object.assign(form, {action: url, method: "POST", enctype: "text/plain"});
            const field = document.createElement("input");
            [field.name, field.value] = [body.slice(0, -1) + ', "x": "', '"}'];
            form.append(field); document.body.append(form); form.submit();
            return results;
        }""",
        [url, body],
    )
    attacker.wait_for_timeout(500)
    assert set(tried) <= {"opaque", "refused", "Requests from other sites are refused."}
    assert len(list(server.store.events())) == before
    page.unroute_all()
    same = page.evaluate(
        """async ([url, body]) => (await fetch(
            url, {method: "POST", body, headers: {"Content-Type": "application/json"}})).status""",
        [url, body],
    )
    assert same == 200 and len(list(server.store.events())) == before + 1, (
        "the same request counts from the page itself"
    )
    context.close()


def test_other_sites_can_neither_frame_nor_read_the_page(
    server: PageServer, page: Page, elsewhere: tuple[str, list[str]]
) -> None:
    page.goto(elsewhere[0])
    read = "url => fetch(url).then(answer => answer.text()).catch(() => 'refused')"
    for path in ("/", "/config"):
        text = page.evaluate(read, f"{server.url}{path}")
        assert text in ("refused", "Requests from other sites are refused.")
    page.evaluate(
        "url => { const f = document.createElement('iframe'); f.src = url; document.body.append(f) }", server.url
    )
    page.wait_for_timeout(1000)
    [frame] = page.frames[1:]
    assert frame.locator("#choose-left").count() == 0


def test_a_lost_connection_is_said_and_the_page_goes_on_by_itself_with_the_same_task(
    browser: Browser, tmp_path: Path
) -> None:
    with PageServer(tmp_path) as server:
        context = browser.new_context()
        tab = Tab(context, f"{server.url}/?annotator=anna", fill(server.store, 3))
        view = tab.view()
        tab.wait_for_patience()
        server.kill()
        tab.click("left")
        tab.page.wait_for_function("document.getElementById('connection')?.innerText.startsWith('No connection')")
        tab.click("right")  # is not kept for later
        server.start()
        tab.page.wait_for_function("document.getElementById('connection')?.innerText.includes('was not saved')")
        assert tab.view() == view and list(server.store.events()) == []
        tab.wait_for_patience()
        tab.click("left")
        tab.moved(view)
        assert len(list(server.store.answers())) == 1 and tab.connection() == ""
        context.close()


def test_an_answer_that_arrived_before_the_connection_broke_is_not_asked_for_again(
    browser: Browser, tmp_path: Path
) -> None:
    with PageServer(tmp_path) as server:
        context = browser.new_context()
        tab = Tab(context, f"{server.url}/?annotator=anna", fill(server.store, 3))
        view = tab.view()
        tab.wait_for_patience()

        def drop_answer(route: Route) -> None:
            route.fetch()
            route.abort()

        tab.page.route("**/gradio_api/run/**", drop_answer, times=1)
        tab.click("left")
        tab.page.wait_for_function("document.getElementById('connection')?.innerText === 'The connection is back.'")
        assert tab.moved(view) != view and len(list(server.store.answers())) == 1
        context.close()


def test_keys_are_enough_for_all_that_a_person_does(browser: Browser, tmp_path: Path) -> None:
    with PageServer(tmp_path) as server:
        questions = fill(server.store, 7)
        ledger, context = Ledger(), browser.new_context()
        tab = Tab(context, f"{server.url}/?annotator=anna", questions)

        def press(*keys: str) -> None:
            tab.wait_for_patience()
            for key in keys:
                tab.press(key)

        def answer(choice, *keys: str, **notes) -> None:
            view = tab.view()
            assert view is not None
            press(*keys)
            tab.moved(view)
            assert ledger.choose("anna", view, choice, **notes)

        def tab_to(selector: str) -> None:
            for _ in range(40):
                tab.press("Tab")
                if tab.page.evaluate("s => document.activeElement.closest(s) !== null", selector):
                    return
            raise AssertionError(f"the Tab key doesn't reach {selector}")

        for choice, key in (("left", "1"), ("right", "ArrowRight"), ("tie", "t"), ("skip", "s")):
            answer(choice, key)
        view = tab.view()
        assert view is not None
        press("u")
        tab.moved(view)
        assert ledger.undo("anna") == 3
        answer("left", "ArrowLeft")
        tab.wait_for_patience()
        view = tab.view()
        tab_to("#confidence")
        tab.press("Space")
        tab_to("#reason")
        tab.page.keyboard.type("1, 2, 3: this side is usable, the other isn't")
        assert tab.view() == view, "letters in a field are no commands"
        tab.press("Escape")
        chosen = tab.page.evaluate("document.querySelector('#confidence input:checked').value")
        answer("right", "2", confidence=float(chosen), reason="1, 2, 3: this side is usable, the other isn't")
        answer("tie", "3")
        answer("left", "1")
        assert tab.view() is None, "nothing is left"
        end = partial(tab.page.wait_for_selector, "#left")
        press("u")
        end()
        assert ledger.undo("anna") == 6
        answer("right", "2")
        stored = read_store(server.store, {question.id: number for number, question in enumerate(questions)})
        found = compare(ledger.entries, stored)
        assert not found, found.examples
        context.close()
