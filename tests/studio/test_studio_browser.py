"""The studio in a real browser: shell, Chat and Runs as a person uses them, and what must not happen there."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from browsers import MARKS, browser_fixture  # noqa: F401
from tiny_model import save_questions, save_tiny, settings

import lmworks

pytest.importorskip("uvicorn")
selenium = pytest.importorskip("selenium")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from studio_server import SCRIPT, Studio, make_runs, open_model, running, save_talker  # noqa: E402

pytestmark = MARKS
WAIT = 30.0  # seconds, for what is bound to come


@pytest.fixture(name="home", scope="module")
def _home(tmp_path_factory) -> Path:
    """Models, n-gram models that write a script, and two tuned runs."""
    home = tmp_path_factory.mktemp("home")
    save_talker(home / "models" / "talker", context=100_000)
    save_talker(home / "models" / "other", seed=4)
    make_runs(home)
    model, data = save_tiny(home / "models" / "tiny"), save_questions(home / "faq.jsonl")
    for name, rate in (("fast", 5e-3), ("slow", 1e-3)):
        values = settings()
        given = {"source": str(data), **values.pop("data")}
        values["train"] |= {"learning_rate": rate, "epochs": 2, "evaluate_every": 6}
        lmworks.tune(str(model), given, method="lora", out=home / "runs" / name, **values)
    return home


@pytest.fixture(name="studio", scope="module")
def _studio(home) -> Iterator[Studio]:
    with running([home], {"talker": open_model(str(home / "models" / "talker"))}) as studio:
        yield studio


class Page:
    """What a person sees and does."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def all(self, selector: str) -> list[Any]:
        return [node for node in self.browser.find_elements(By.CSS_SELECTOR, selector) if node.is_displayed()]

    def one(self, selector: str) -> Any:
        """The first that is shown; waits for it."""
        self.wait(lambda: self.all(selector))
        return self.all(selector)[0]

    def button(self, text: str, within: str = "body") -> Any:
        self.wait(lambda: [node for node in self.all(f"{within} button") if node.text == text])
        return self.seen(next(node for node in self.all(f"{within} button") if node.text == text))

    def seen(self, node: Any) -> Any:
        """Scroll a node away from the bar, which stays at the top."""
        self.run("arguments[0].scrollIntoView({ block: 'center' })", node)
        return node

    def wait(self, condition: Any, seconds: float = WAIT) -> None:
        from selenium.common.exceptions import StaleElementReferenceException

        end = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except StaleElementReferenceException:  # drawn anew meanwhile
                pass
            assert time.monotonic() < end, f"it did not come; the page says {self.one('body').text[:2000]!r}"
            time.sleep(0.02)

    def open(self, studio: Studio, rest: str = "") -> Page:
        self.browser.get(studio.address + rest)
        self.wait(lambda: self.all("#tabs a"))
        return self

    def tab(self, name: str) -> None:
        next(link for link in self.all("#tabs a") if link.text == name).click()

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def ready(self) -> None:
        """Wait until a model can be asked."""
        self.wait(lambda: self.one(".composer .primary").is_enabled())

    def say(self, text: str) -> None:
        """Send a message and wait for the answers."""
        self.ready()
        self.one(".composer textarea").send_keys(text, Keys.ENTER)
        self.wait(lambda: text.strip() in self.all(".asked .text")[-1].text)
        self.done()

    def done(self) -> None:
        self.wait(lambda: not self.all('[aria-busy="true"]') and not self.all("[data-key='stop']"))

    def set(self, name: str, value: Any) -> None:
        """A setting of the sampling."""
        if not self.all(".sampling"):
            self.seen(self.one(".settings summary")).click()
        field = self.one(f'.sampling [name="{name}"]')
        field.clear()
        field.send_keys(str(value))

    def errors(self) -> list[str]:
        """What the browser's console says."""
        return [entry["message"] for entry in self.browser.get_log("browser")]


@pytest.fixture(name="page")
def _page(browser: Any) -> Iterator[Page]:
    browser.set_window_size(1280, 900)
    page = Page(browser)
    yield page
    assert page.errors() == []


def phone(browser: Any, width: int = 390) -> None:
    size = {"width": width, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def test_the_token_leaves_the_address_and_a_reload_needs_none(studio, page):
    page.open(studio)
    assert page.browser.current_url == f"{studio.url}/studio"
    page.browser.refresh()
    page.one("#tabs a")
    assert [link.text for link in page.all("#tabs a")] == ["Chat", "Data", "Start", "Runs", "Rate"]
    assert page.run("return document.cookie") == ""  # no script can read it


def test_a_conversation_is_asked_edited_branched_and_asked_again(studio, page):
    page.open(studio)
    page.set("max_tokens", 24)
    page.say("one")
    page.say("two")
    first, second = (node.text for node in page.all(".answer .body"))
    page.button("Again", ".turn:last-of-type").click()
    page.wait(lambda: "2/2" in page.one(".turn:last-of-type .steps").text)
    page.done()
    page.one('[aria-label="Previous answer"]').click()
    assert page.all(".answer .body")[1].text == second

    page.button("Edit", ".turn:first-of-type .asked").click()
    editor = page.one(".editor textarea")
    assert editor.get_attribute("value") == "one"
    editor.send_keys(" and more", Keys.ENTER)
    page.wait(lambda: [node.text for node in page.all(".asked .text")] == ["one and more"])
    page.done()
    page.one('[aria-label="Previous message"]').click()
    assert [node.text for node in page.all(".asked .text")] == ["one", "two"]
    assert page.all(".answer .body")[0].text == first

    page.button("Branch", ".turn:first-of-type").click()
    assert [node.text for node in page.all(".asked .text")] == ["one"]
    page.say("three")
    assert [node.text for node in page.all(".asked .text")] == ["one", "three"]
    page.one('.turn:last-of-type [aria-label="Previous message"]').click()
    assert [node.text for node in page.all(".asked .text")] == ["one", "two"]

    page.browser.refresh()  # the conversation is kept
    page.wait(lambda: [node.text for node in page.all(".asked .text")] == ["one", "two"])
    assert page.all(".answer .body")[0].text == first
    page.button("New chat").click()
    page.wait(lambda: not page.all(".turn"))


def test_an_answer_that_was_edited_is_what_the_model_reads(studio, page):
    page.open(studio)
    page.set("temperature", 0)
    page.set("max_tokens", 12)
    page.say("one")
    page.button("Edit", ".turn .answers").click()
    editor = page.one(".editor textarea")
    editor.clear()
    editor.send_keys("a dog", Keys.ENTER)
    page.wait(lambda: page.all(".answer .foot")[0].text == "edited")
    page.say("two")
    messages = [("user", "one"), ("assistant", "a dog"), ("user", "two")]
    body = {"messages": [{"role": role, "content": text} for role, text in messages], "max_tokens": 12}
    asked = studio.ask("POST", "/v1/chat/completions", {"model": "talker", "temperature": 0, **body})[1]
    shown = page.run("return JSON.parse(sessionStorage.conversation)")
    first = shown["next"][""]["turns"][0]
    (second,) = first["next"]["1"]["turns"]
    assert second["lanes"][0]["versions"][0]["text"] == asked["choices"][0]["message"]["content"]


def test_tokens_show_their_probabilities_and_what_else_was_likely(studio, page):
    from selenium.webdriver.common.action_chains import ActionChains

    page.open(studio)
    page.set("temperature", 0)
    page.set("max_tokens", 16)
    page.say("one")
    page.button("Tokens").click()
    tokens = page.all(".token")
    foot = page.one(".answer .foot").text
    assert foot.startswith(f"{len(tokens)} tokens · ")
    assert "tokens/s" in foot
    assert "first token after" in foot
    ActionChains(page.browser).move_to_element(tokens[2]).perform()
    tip = page.one(".tip")
    rows = tip.find_elements(By.CSS_SELECTOR, "tr")
    assert 5 <= len(rows) <= 6
    shares = [float(row.find_element(By.CSS_SELECTOR, ".figure").text.removesuffix(" %")) for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert "chosen" in rows[0].get_attribute("class")  # at temperature 0 the likeliest
    assert rows[0].find_element(By.CSS_SELECTOR, ".figure").text in tokens[2].get_attribute("aria-label")
    tokens[2].click()
    page.browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert page.browser.switch_to.active_element == tokens[3]
    assert page.one(".tip .chosen .figure").text in tokens[3].get_attribute("aria-label")
    page.browser.switch_to.active_element.send_keys(Keys.END)
    assert page.browser.switch_to.active_element == tokens[-1]
    page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not page.all(".tip")
    page.button("Tokens").click()
    assert not page.all(".token")


def test_two_models_answer_beside_each_other(studio, page):
    page.open(studio)
    page.set("max_tokens", 12)
    page.set("temperature", 0)
    page.run(
        "const s = document.querySelectorAll('.choice select')[1]; s.value = 'models/other'; "
        "s.dispatchEvent(new Event('change'))"
    )
    page.wait(lambda: "models/other is open" in page.one(".toolbar").text)
    page.say("one")
    assert [node.text for node in page.all(".answers h2")] == ["talker", "models/other"]
    boxes = [node.rect for node in page.all(".answers section")]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"]
    page.say("two")
    body = {"messages": [{"role": "user", "content": "one"}], "max_tokens": 12, "temperature": 0}
    for lane, model in enumerate(("talker", "models/other")):
        answer = studio.ask("POST", "/v1/chat/completions", {"model": model, **body})[1]
        shown = page.run("return JSON.parse(sessionStorage.conversation)")["next"][""]["turns"][0]["lanes"][lane]
        assert shown["versions"][0]["text"] == answer["choices"][0]["message"]["content"]
    page.button("Close", ".toolbar p:nth-of-type(2)").click()
    page.wait(lambda: len(page.all(".answers section")) == 2)  # one model again, two turns


def test_a_long_answer_is_stopped_and_its_place_is_free(studio, page):
    page.open(studio)
    page.set("max_tokens", 90_000)
    page.set("temperature", 0)
    page.set("frequency_penalty", -2)  # it repeats itself, and does not end: a token that was drawn might end it
    page.ready()
    for stop in (lambda: page.button("Stop").click(), lambda: page.one(".composer textarea").send_keys(Keys.ESCAPE)):
        page.one(".composer textarea").send_keys("one", Keys.ENTER)
        page.wait(lambda: page.all(".turn:last-of-type .answer .body")[-1].text)
        stop()
        page.done()
    running = [
        line for line in studio.ask("GET", "/metrics")[1].splitlines() if line.startswith("lmworks_answers_running{")
    ]
    assert running
    assert all(line.endswith(" 0.0") for line in running)
    assert any("stopped" in node.text for node in page.all(".answer .foot"))


def test_settings_that_cannot_be_are_said_at_their_field(studio, page):
    page.open(studio)
    page.set("temperature", 9)
    page.ready()
    page.one(".composer textarea").send_keys("one", Keys.ENTER)
    assert not page.all(".turn")
    assert page.run("return document.activeElement.name") == "temperature"
    page.set("temperature", 1)
    page.set("max_tokens", 4)
    page.say("one")
    page.browser.refresh()
    page.seen(page.one(".settings summary")).click()
    assert page.one('.sampling [name="temperature"]').get_attribute("value") == "1"


def test_a_script_of_a_model_or_a_person_does_nothing(studio, page):
    page.open(studio, "#chat/runs/ngram-5")
    page.wait(lambda: "runs/ngram-5 is open" in page.one(".toolbar").text)
    page.set("temperature", 0)
    page.set("max_tokens", 3 * len(SCRIPT))
    page.say("page 1: ")
    assert "<script>" in page.one(".answer .body").text
    page.button("Tokens").click()
    page.one(".token")
    page.say(SCRIPT)
    texts = [
        SCRIPT,
        f"# {SCRIPT}",
        f"- {SCRIPT}\n\n|a|\n|-|\n|{SCRIPT}|",
        f"[x](javascript:document.title='ran') {SCRIPT}",
        "[x](data:text/html,<script>1</script>)",
        f"```html\n{SCRIPT}\n```",
        f"![x](https://example.org/x.png) **{SCRIPT}**",
    ]
    drawn = page.browser.execute_async_script(
        "const [texts, done] = arguments; import('/studio/page/markdown.js').then(({ markdown }) => {"
        "const made = texts.map(markdown); document.body.append(...made);"
        "setTimeout(() => done(made.map((m) => [m.textContent,"
        "m.querySelectorAll('script,img,iframe,[onerror]').length,"
        "[...m.querySelectorAll('a')].map((a) => a.protocol)])), 300); });",
        texts,
    )
    for text, count, protocols in drawn:
        assert count == 0
        assert set(protocols) <= {"https:"}
        assert text
    assert page.browser.title == "Chat · lmworks studio"
    assert page.run("return document.scripts.length") == 1
    page.tab("Runs")
    page.one('a[href="#runs/page/runs/ngram-5"]').click()
    frame = page.one("iframe")
    page.browser.switch_to.frame(frame)
    page.wait(lambda: page.all("h1"))
    assert page.browser.title != "ran"
    assert page.run("try { parent.document; return 'reached' } catch { return 'kept out' }") == "kept out"
    asked = page.browser.execute_async_script(
        "const done = arguments[0]; fetch(arguments[1]).then(() => done('answered'), () => done('refused'))".replace(
            "arguments[0]", "arguments[arguments.length - 1]"
        ).replace("arguments[1]", f"'{studio.url}/v1/models'")
    )
    assert asked == "refused"
    page.browser.switch_to.default_content()
    assert all("Content Security Policy" in error or "net::ERR" in error for error in page.errors())  # of that fetch


def test_an_inline_script_would_not_run_even_if_one_came_in(studio, page):
    page.open(studio)
    page.run(
        "const s = document.createElement('div'); try { s.innerHTML = '<img src=x onerror=\"document.title=1\">' } "
        "catch (error) { document.body.dataset.refused = error.name } document.body.append(s)"
    )
    page.run(
        "const s = document.createElementNS('http://www.w3.org/1999/xhtml', 'script');"
        "try { s.textContent = 'document.title = 2'; document.body.append(s) } catch (error) { }"
    )
    time.sleep(0.3)
    assert page.browser.title == "Chat · lmworks studio"
    assert page.run("return document.body.dataset.refused") == "TypeError"  # Trusted Types
    assert page.errors() != []


def test_a_page_of_another_site_reaches_nothing(studio, page, tmp_path):
    """It is on another port of this machine, so that the cookie is sent with its requests."""
    page.open(studio)
    page.ready()
    (tmp_path / "index.html").write_text(
        f"<title>evil</title><iframe src='{studio.url}/studio'></iframe><script>"
        f"const ask = (path, options) => fetch('{studio.url}' + path, {{ credentials: 'include', ...options }});"
        "Promise.allSettled([ask('/v1/models'), ask('/studio/api/models'),"
        "ask('/studio/api/models/close', { method: 'POST', mode: 'no-cors', body: '{\"name\": \"talker\"}' }),"
        "ask('/studio/api/models', { mode: 'no-cors' })]).then((all) => {"
        "document.title = all.map((one) => one.status === 'fulfilled' ? one.value.type : 'refused').join() });</script>"
    )
    handler = partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            page.browser.get(f"http://127.0.0.1:{other.server_address[1]}/")
            page.wait(lambda: page.browser.title != "evil")
            assert page.browser.title == "refused,refused,refused,refused"
            page.browser.switch_to.frame(page.one("iframe"))
            assert not page.all("#tabs a")
            page.browser.switch_to.default_content()
        finally:
            other.shutdown()
            thread.join()
    assert [m["name"] for m in studio.ask("GET", "/studio/api/models")[1]["models"] if m["state"] == "open"][:1] == [
        "talker"
    ]
    assert page.errors() != []


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: Any) -> None:
        """No log."""


def test_runs_are_listed_filtered_and_compared(studio, page):
    page.open(studio, "#runs")
    page.wait(lambda: len(page.all("table.runs tbody tr")) == 4)
    page.one('input[type="search"]').send_keys("lora")
    page.wait(lambda: len(page.all("table.runs tbody tr")) == 2)
    assert page.one('[aria-live="polite"]').text == "2 of 4 runs"
    assert not page.button("Side by side").is_enabled()
    for box in page.all('table.runs input[type="checkbox"]'):
        box.click()
    page.button("Side by side (2)").click()
    page.wait(lambda: page.all(".besides"))
    differences = page.all(".besides")[0].text
    assert "train.learning_rate" in differences
    assert "0.005" in differences
    assert "0.001" in differences
    assert "train.seed" not in differences
    assert [heading.text for heading in page.all(".card h2")][:3] == [
        "What their recipes differ in",
        "Figures",
        "Held-out loss",
    ]
    assert len(page.all(".chart path")) == 2
    assert page.all(".besides b")  # the better of a row
    chart = page.one(".chart")
    page.run("arguments[0].focus()", chart)
    page.browser.switch_to.active_element.send_keys(Keys.HOME)
    assert page.one(".say").text.startswith("step 0: ")
    page.browser.back()
    page.wait(lambda: len(page.all("table.runs tbody tr")) == 2)  # still filtered
    page.one('a[href="#runs/page/runs/fast"]').click()
    page.browser.switch_to.frame(page.one("iframe"))
    page.wait(lambda: "Report card of fast" in page.one("body").text)
    page.wait(lambda: page.all("path.held"))
    page.browser.switch_to.default_content()
    page.button("Chat with it").click()
    page.wait(lambda: "runs/fast is open" in page.one(".toolbar").text)


def test_everything_is_reached_by_keys(studio, page):
    page.open(studio)
    page.ready()
    active = lambda: page.browser.switch_to.active_element  # noqa: E731
    page.run("document.querySelector('#tabs a').focus()")
    page.browser.switch_to.active_element.send_keys(Keys.SHIFT, Keys.TAB)
    assert active().get_attribute("class") == "skip"
    assert page.run("return document.activeElement.getBoundingClientRect().left") >= 0
    active().send_keys(Keys.TAB)
    assert active().text == "Chat"
    for _ in range(3):
        active().send_keys(Keys.TAB)
    assert active().text == "Runs"
    outline = page.run("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    active().send_keys(Keys.ENTER)
    page.one("table.runs")
    reached = set()
    for _ in range(60):
        active().send_keys(Keys.TAB)
        reached.add(page.run("const a = document.activeElement; return a.tagName + ' ' + (a.type || a.hash || '')"))
    for kind in ("INPUT search", "SELECT select-one", "INPUT checkbox", "A #runs/page/runs/fast", "BUTTON button"):
        assert kind in reached


def test_dark_and_light_follow_the_system_or_the_switch(studio, page):
    page.open(studio)
    background = "return getComputedStyle(document.body).backgroundColor"
    system = page.run(background)
    colours = {page.one("#paper").get_attribute("aria-label"): system}
    for _ in range(2):
        page.one("#paper").click()
        colours[page.one("#paper").get_attribute("aria-label")] = page.run(background)
    assert set(colours) == {"Paper: as the system", "Paper: light", "Paper: dark"}
    assert colours["Paper: light"] != colours["Paper: dark"]
    assert system in (colours["Paper: light"], colours["Paper: dark"])
    chosen = page.one("#paper").get_attribute("aria-label")
    page.browser.refresh()
    page.one("#tabs a")
    assert page.one("#paper").get_attribute("aria-label") == chosen
    assert page.run(background) == colours[chosen]


CONTRAST = """
const luminance = (text) => {
  const scale = text.startsWith("color(srgb") ? 1 : 255;
  const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map((v) => {
    v /= scale;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (!/rgba\\(.*, 0\\)|transparent/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
};
const low = [];
for (const node of document.querySelectorAll("body *")) {
  if (!node.getClientRects().length || node.disabled) continue;
  if (![...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim())) continue;
  const [one, two] = [luminance(getComputedStyle(node).color), luminance(behind(node))].sort((a, b) => b - a);
  const ratio = (one + 0.05) / (two + 0.05);
  if (ratio < 4.5) low.push(`${node.textContent.trim().slice(0, 40)} ${ratio.toFixed(2)}`);
}
return low;
"""


@pytest.mark.parametrize("width", [360, 390])
def test_nothing_is_wider_than_a_phone_and_all_can_be_read(studio, page, width):
    phone(page.browser, width)
    page.open(studio)
    page.set("max_tokens", 40)
    page.say("a_word_that_is_longer_than_the_screen_of_a_phone_" * 4)
    page.button("Tokens").click()
    places = [
        "#chat",
        "#data",
        "#start",
        "#runs",
        "#rate",
        "#runs/page/runs/fast",
        "#runs/beside/runs%252Ffast,runs%252Fslow",
    ]
    for place in places:
        page.run("location.hash = arguments[0]", place)
        time.sleep(0.5)
        assert page.run("return document.documentElement.scrollWidth") <= width, place
        assert page.run(CONTRAST) == [], place


def test_a_real_model_answers(smollm2, page, tmp_path):
    with running([tmp_path]) as studio:
        page.open(studio, "#chat/smollm2-135m-instruct")
        page.wait(lambda: "smollm2-135m-instruct is open, a context of 8,192 tokens" in page.one(".toolbar").text)
        page.set("temperature", 0)
        page.set("max_tokens", 60)
        page.say("What is the capital of France?")
        assert "Paris" in page.one(".answer .body").text
        page.say("Write a list of three animals.")
        assert page.errors() == []


MARKDOWN = {
    "# A\n\ntwo\nlines": "h3(A) p(two\nlines)",
    "a **b *c*** `d*e*` ~~f~~": "p(a strong(b em(c)) code(d*e*) del(f))",
    "- a\n- b\n  - c\n\n  d\n- e": "ul(li(a) li(bul(li(c)) p(d)) li(e))",
    "3. a\n4. b": "ol(li(a) li(b))",
    "> a\n> b": "blockquote(p(a\nb))",
    "```py\nx < 1\n\n# no\n```\nafter": "pre(code(x < 1\n\n# no)) p(after)",
    "```\nnot closed": "pre(code(not closed))",
    "|a|b|\n|-|:-:|\n|1|2|\n|3|": "div(table(thead(tr(th(a) th(b))) tbody(tr(td(1) td(2)) tr(td(3) td()))))",
    "a\n\n---\n\nb": "p(a) hr() p(b)",
    "snake_case_name 2*3*4 a_b": "p(snake_case_name 2em(3)4 a_b)",
    "[a](https://example.org/x) <https://example.org>": "p(a(a) a(https://example.org))",
    "[a](javascript:x) [b](x.html)": "p([a](javascript:x) [b](x.html))",
    "\\*a\\* &amp; <b>": "p(*a* &amp; <b>)",
    ">" * 50 + " a": None,
    "*" * 5000 + "a": None,
    "[" * 5000: None,
    "`" * 3001 + "a": None,
}
OUTLINE = """
const [texts, done] = arguments;
const outline = (node) => node.nodeType === 3 ? node.data : `${node.tagName.toLowerCase()}(${inside(node)})`;
const inside = (node) => [...node.childNodes].map(outline).join("").replaceAll(")p(", ") p(").replace(
  /\\)(?=(?:h3|p|ul|ol|li|pre|hr|tr|td|th|tbody|blockquote|table)\\()/g, ") ");
import("/studio/page/markdown.js").then(({ markdown }) => done(texts.map((text) => inside(markdown(text)))));
"""


def test_markdown_is_read_as_people_write_it(studio, page):
    page.open(studio)
    drawn = page.browser.execute_async_script(OUTLINE, list(MARKDOWN))
    for (text, expected), outline in zip(MARKDOWN.items(), drawn, strict=True):
        assert expected is None or outline == expected, text
        assert outline
