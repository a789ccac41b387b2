"""The app in a real browser: what a visitor chooses, sees and links to."""

from __future__ import annotations

import io
import shutil
import time

import pytest

from captum_transformer_lrp.insights.uploads import MAX_BYTES

from .conftest import TEXTS

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright, which drives the browser"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    # What Bokeh says of a click on a button that was added after the page was made.
    pytest.mark.filterwarnings("ignore:reference already known"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, server):
    """Open addresses of the app, and fail on errors and on requests elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(25_000)
    errors, urls = [], []

    def go(query="", app_server=server):
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: urls.append(request.url))
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        page.goto(app_server.url + query)
        page.wait_for_selector("h1")
        return page

    yield go
    context.close()
    assert errors == []
    own = (server.url, f"blob:{server.url}", "data:")
    assert {url for url in urls if not url.startswith(own)} == set()


def numbers(page):
    """The examples on the page, once all of them have their map."""
    page.wait_for_function(
        """() => {
          const all = (root) => [...root.querySelectorAll("*")].flatMap(
            (e) => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])]);
          const cards = all(document).filter((e) => e.matches("article.compact"));
          return cards.length && cards.every(
            (card) => card.querySelector(".t, .note, img"));
        }"""
    )
    titles = page.locator("article.compact h2").all_inner_texts()
    # A card that is being drawn again has no title yet.
    return [int(title.split()[1].rstrip(":")) for title in titles if title]


def shows(page, expected):
    """Wait until the page lists these examples."""
    end = time.monotonic() + 60
    while (found := numbers(page)) != expected:
        assert time.monotonic() < end, (found, expected)
        page.wait_for_timeout(200)


def listed(app, **changes):
    from captum_transformer_lrp.insights.view import View, select

    places = select(View(method="attnlrp", **changes), app.data, app.predictions)
    return [place + 1 for place in places]


def test_a_visitor_chooses_and_links(app, visit):
    page = visit()
    shows(page, listed(app)[:6])
    page.get_by_text("predictions correct").wait_for()

    page.get_by_role("button", name="Next").click()
    shows(page, listed(app)[6:])
    page.wait_for_url("**/?*page=2*")

    page.get_by_label("Show", exact=True).select_option("Correct predictions")
    expected = listed(app, outcome="correct")
    shows(page, expected[:6])
    page.wait_for_url("**/?*outcome=correct*")
    assert "page=" not in page.url

    page.get_by_label("Texts with").fill("great")
    page.get_by_label("Texts with").press("Enter")
    shows(page, [1])
    page.get_by_label("Texts with").fill("")
    page.get_by_label("Texts with").press("Enter")
    shows(page, expected[:6])

    page.get_by_label("Method").select_option("gradient-x-input")
    page.get_by_label("Explain", exact=True).select_option("negative")
    page.wait_for_url("**/?*target=0*")
    assert "method=gradient-x-input" in page.url

    page.wait_for_timeout(3000)  # both choices redraw the list, buttons and all
    shows(page, expected[:6])
    page.get_by_role("button", name="Open").first.click()
    page.wait_for_url(lambda url: "?example=" in url)
    page.get_by_text("“negative”?").wait_for()
    assert numbers_of_link(page) == expected[0]

    link = page.get_by_role("link", name="Permanent link").get_attribute("href")
    again = visit(link)
    again.get_by_text("“negative”?").wait_for()
    assert again.url.endswith(link)
    for seen in (page, again):
        card = seen.locator("article:not(.compact)")
        card.wait_for()
    assert (
        page.locator("article:not(.compact)").inner_text()
        == again.locator("article:not(.compact)").inner_text()
    )
    assert again.get_by_label("Method").input_value() == "gradient-x-input"
    assert (
        again.get_by_label("Show", exact=True).evaluate(
            "e => e.selectedOptions[0].text"
        )
        == "Correct predictions"
    )

    again.get_by_role("button", name="Back to the list").click()
    shows(again, expected[:6])
    again.go_back()  # to the example, as the browser's button does
    again.get_by_text("“negative”?").wait_for()


def numbers_of_link(page):
    return int(page.url.split("example=")[1].split("&")[0])


def test_an_address_that_means_nothing_says_so(app, visit):
    page = visit("?example=../../etc/passwd&method=<img src=x onerror=alert(1)>")
    page.get_by_text("The address asks for example “../../etc/passwd”").wait_for()
    page.get_by_text("“<img src=x onerror=alert(1)>”").wait_for()
    shows(page, listed(app)[:6])


def test_a_script_in_a_text_does_not_run(visit):
    for query in ("?search=%3Cscript%3E", "?example=5"):
        page = visit(query)
        page.get_by_text("taken").first.wait_for()
        if "search" in query:
            shows(page, [5])
        else:
            page.get_by_role("heading", name="Why").wait_for()
        page.wait_for_timeout(500)
        assert page.title() == "built-in text-classifier on data from Python"
    page.get_by_placeholder("A text of your own").fill(
        "<script>document.title='taken'</script><img src=x onerror=alert(1)> dull"
    )
    page.get_by_role("button", name="Explain it").click()
    page.get_by_role("heading", name="Your own text").nth(1).wait_for()
    page.get_by_text("onerror").first.wait_for()
    page.wait_for_timeout(500)
    assert page.title() == "built-in text-classifier on data from Python"


def test_a_text_of_ones_own(visit):
    page = visit("?target=label&example=1")
    page.get_by_role("button", name="Explain it").click()
    page.get_by_text("write a text to explain first").wait_for()
    page.get_by_placeholder("A text of your own").fill("A most wonderful evening.")
    page.get_by_role("button", name="Explain it").click()
    page.get_by_text("has no true class").wait_for()
    page.get_by_label("Explain", exact=True).select_option("positive")
    page.get_by_text("evening").first.wait_for()
    page.get_by_role("button", name="Close").click()
    page.get_by_role("heading", name="Your own text").nth(1).wait_for(state="hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 380])
def test_light_and_dark_agree_and_nothing_overflows(browser, server, scheme, width):
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 800}
    )
    page = context.new_page()
    page.goto(server.url)
    numbers(page)

    def ground(selector):
        found = page.locator(selector).first.evaluate(
            "e => getComputedStyle(e).backgroundColor"
        )
        return sum(int(v) for v in found[4:-1].split(",")[:3]) / 3

    places = ("body", "article.compact", "select", "textarea")
    dark = [ground(place) < 128 for place in places]
    assert dark == [scheme == "dark"] * 4
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width
    page.get_by_role("button", name="Switch between light and dark").click()
    assert [ground(place) < 128 for place in places] == [scheme == "light"] * 4
    page.reload()  # the choice is kept
    numbers(page)
    assert [ground(place) < 128 for place in places] == [scheme == "light"] * 4
    context.close()


def test_sessions_end_with_their_pages(server, visit):
    page = visit()
    assert server.sessions >= 1
    page.close()
    for other in page.context.pages:
        other.close()
    end = time.monotonic() + 30
    while server.sessions:
        assert time.monotonic() < end, server.sessions
        time.sleep(0.2)


def test_pictures_and_uploads(browser, tmp_path):
    pytest.importorskip("timm", reason="timm, for the built-in model of pictures")
    from captum_transformer_lrp import insights
    from captum_transformer_lrp.models.pictures import draw_ship

    (tmp_path / "ship").mkdir()
    draw_ship(64).save(tmp_path / "ship" / "1.png")
    (tmp_path / "ship" / "2.png").write_bytes(b"no picture")
    made = insights.App("built-in", tmp_path)
    with made.start(port=0, unused_lifetime=1.0) as running:
        page = browser.new_page()
        page.set_default_timeout(25_000)
        page.goto(running.url)
        page.get_by_text("1 could not be read").wait_for()
        assert sorted(numbers(page)) == [1, 2]
        page.get_by_text("'2.png' is not a picture").wait_for()

        def upload(content):
            page.locator("input[type=file]").set_input_files(
                {"name": "a.png", "mimeType": "image/png", "buffer": content}
            )
            page.wait_for_timeout(1000)
            page.get_by_role("button", name="Explain it").click()

        upload(b"\0" * (MAX_BYTES + 1))
        page.get_by_text("at most 10 MiB are taken").wait_for()
        upload(b"<svg onload=alert(1)>")
        page.get_by_text("the file is not a picture").wait_for()
        content = io.BytesIO()
        draw_ship(96).save(content, format="PNG")
        upload(content.getvalue())
        page.get_by_text("Relevance of each patch").wait_for()
        page.close()


def test_the_data_has_a_text_with_a_script():
    assert any("<script>" in text for text, _ in TEXTS)
