import pytest
from starlette.datastructures import Headers

from hf_align.feedback.page.guard import COLAB_HOSTS, LOCAL_HOSTS, Guard


async def nothing(scope, receive, send) -> None:
    raise AssertionError


def refuse(guard: Guard, method: str = "POST", path: str = "/gradio_api/run/predict", **headers: str) -> int | None:
    """Status of a refusal; underscores of header names stand for hyphens."""
    raw = {name.replace("_", "-"): value for name, value in headers.items()}
    refusal = guard.refuse(method, path, Headers(raw))
    return refusal and refusal[0]


LOCAL = Guard(nothing)
ANY = Guard(nothing, hosts=None)
SHARED = Guard(nothing, hosts={*LOCAL_HOSTS, "abc.gradio.live"})
COLAB = Guard(nothing, suffixes=COLAB_HOSTS)


@pytest.mark.parametrize(
    ("guard", "host", "passes"),
    [
        (LOCAL, "127.0.0.1:7860", True),
        (LOCAL, "LOCALHOST:7860", True),
        (LOCAL, "[::1]:7860", True),
        (LOCAL, "evil.example:7860", False),
        (LOCAL, "127.0.0.1.evil.example", False),
        (LOCAL, "evil.example@127.0.0.1", True),  # the host of such an address is the second
        (LOCAL, "", False),
        (LOCAL, "[", False),
        (SHARED, "abc.gradio.live", True),
        (SHARED, "other.gradio.live", False),
        (COLAB, "x-7860-colab.googleusercontent.com", True),
        (COLAB, "7860-m-s-x.us-central1-0.prod.colab.dev", True),
        (COLAB, "x.googleusercontent.com", False),
        (ANY, "page.example", True),
        (ANY, "", False),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_page_answers_to_its_own_names_only(guard: Guard, host: str, passes: bool, method: str) -> None:
    assert refuse(guard, method, host=host) == (None if passes else 403)


@pytest.mark.parametrize(
    ("guard", "host", "origin", "passes"),
    [
        (LOCAL, "127.0.0.1:7860", "http://127.0.0.1:7860", True),
        (LOCAL, "127.0.0.1:7860", "http://127.0.0.1:8000", False),
        (LOCAL, "127.0.0.1:7860", "http://localhost:7860", False),
        (LOCAL, "127.0.0.1:7860", "https://evil.example", False),
        (LOCAL, "127.0.0.1:7860", "null", False),
        (LOCAL, "127.0.0.1:7860", "", False),
        (SHARED, "127.0.0.1:7860", "https://abc.gradio.live", True),
        (SHARED, "abc.gradio.live", "https://other.gradio.live", False),
        (ANY, "page.example", "https://page.example", True),
        (ANY, "page.example", "https://evil.example", False),
        (COLAB, "localhost:7860", "https://x-7860-colab.googleusercontent.com", True),
        (COLAB, "localhost:7860", "https://colab.research.google.com.evil.example", False),
    ],
)
def test_posts_of_other_origins_are_refused(guard: Guard, host: str, origin: str, passes: bool) -> None:
    assert refuse(guard, host=host, origin=origin) == (None if passes else 403)
    assert refuse(guard, "GET", host=host, origin=origin) is None


@pytest.mark.parametrize(
    ("site", "passes"), [("same-origin", True), ("none", True), ("same-site", False), ("cross-site", False)]
)
def test_posts_that_the_browser_calls_foreign_are_refused(site: str, passes: bool) -> None:
    headers = {"host": "localhost", "origin": "http://localhost", "sec_fetch_site": site}
    assert refuse(LOCAL, **headers) == (None if passes else 403)


@pytest.mark.parametrize(
    "path",
    [
        *("/gradio_api/upload", "/gradio_api/file=/etc/passwd", "/gradio_api/proxy=http://x", "/gradio_api/info"),
        *("/gradio_api/queue/join", "/gradio_api/call/answer", "/gradio_api/component_server", "/monitoring"),
        *(
            "/gradio_api/run",
            "/file=/etc/passwd",
            "/gradio_api/runs",
            "/docs",
            "/openapi.json",
            "/gradio_api/vibe-edit",
        ),
    ],
)
def test_other_endpoints_are_not_there(path: str) -> None:
    assert refuse(LOCAL, "GET", path, host="localhost") == 404
    assert refuse(LOCAL, "POST", path + "/", host="localhost") == 404


@pytest.mark.parametrize(
    ("method", "site", "mode", "passes"),
    [
        ("GET", "cross-site", "navigate", True),  # a link
        ("GET", "same-site", "cors", False),  # a script of another port
        ("GET", "cross-site", "no-cors", False),
        ("HEAD", "cross-site", "cors", False),
        ("POST", "cross-site", "navigate", False),  # a form
        ("GET", "same-origin", "cors", True),
        ("POST", "same-origin", "cors", True),
    ],
)
def test_scripts_of_other_sites_can_read_nothing_and_links_lead_here(
    method: str, site: str, mode: str, passes: bool
) -> None:
    headers = {"host": "127.0.0.1:7860", "sec_fetch_site": site, "sec_fetch_mode": mode}
    assert refuse(LOCAL, method, "/", **headers) == (None if passes else 403)
