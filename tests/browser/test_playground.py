"""The playground in a real browser, against a running server."""

from __future__ import annotations

import base64
import json
import math
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import playwright
import pytest
from playwright.sync_api import Page, expect

from serving.model_store import label
from serving.server.app import EmbeddedServer
from serving.server.options import ServerOptions
from tests.browser.chromium import grave_findings
from tests.browser.small_classifiers import publish_all, publish_patients
from tests.serving.colour_photos import BAD, UNKNOWN, photo
from tests.serving.server import small_models

OPTIONS = ServerOptions(rest_port=0, grpc_port=0, playground=True)
NODE = Path(playwright.__file__).parent / "driver/node"
MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def base_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("playground")
    found = publish_all(folder)
    publish_patients(folder / "patients", build="2")
    label(found["patients"], "stable", 1)
    small_models.save_greeting(folder / "greeting/1")
    small_models.save_half_plus_two(folder / "half_plus_two/1")
    return found | {name: str(folder / name) for name in ("greeting", "half_plus_two")}


@pytest.fixture(scope="module")
def server(base_paths: dict[str, str]) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(base_paths, OPTIONS) as server:
        yield server


def address(server: EmbeddedServer) -> str:
    return f"http://127.0.0.1:{server.rest_port}"


def choose(page: Page, server: EmbeddedServer, model: str) -> None:
    """Open the page and choose a model; returns when its form is there."""
    page.goto(address(server))
    page.get_by_label("Model").select_option(model)
    expect(page.locator("#snippet")).to_contain_text(f"/v1/models/{model}:predict")


def ask(page: Page) -> list[str]:
    """Send what is in the form, and read off the bars."""
    page.get_by_role("button", name="Ask the model").click()
    expect(page.locator("#status")).to_contain_text(re.compile(r"Answered in [\d.]+ ms\."))
    return page.locator(".bars li").all_inner_texts()


def bars(page: Page) -> list[tuple[str, str]]:
    lines = (line.split("\n") for line in ask(page))
    return [(name.strip(), share.strip()) for name, share, *_ in lines]


def complaint(page: Page) -> str:
    """Send what is in the form, and read what is wrong with it."""
    page.get_by_role("button", name="Ask the model").click()
    alert = page.get_by_role("alert")
    expect(alert).not_to_be_empty()
    return alert.inner_text()


def predict(server: EmbeddedServer, model: str, request: dict) -> dict:
    """What any other client is answered."""
    body = json.dumps(request).encode()
    try:
        with urllib.request.urlopen(f"{address(server)}/v1/models/{model}:predict", body) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        return json.load(error)


def test_a_row_starts_with_a_real_example_and_is_answered_with_probabilities(page, server):
    choose(page, server, "patients")
    assert [page.get_by_label(name).input_value() for name in ("age", "oldpeak", "thal")] == ["63", "2.3", "fixed"]
    assert bars(page) == [("disease", "96.4 %"), ("healthy", "3.6 %")]  # the sigmoid of 3.3
    widths = page.locator(".bar > span").evaluate_all("spans => spans.map(span => parseFloat(span.style.width))")
    assert widths == pytest.approx([96.4, 3.6], abs=0.05)

    page.get_by_label("age").fill("30")
    page.get_by_label("thal").fill("normal")
    assert bars(page) == [("healthy", "88.1 %"), ("disease", "11.9 %")]  # the sigmoid of 2


def test_an_empty_field_is_sent_as_a_missing_value(page, server):
    choose(page, server, "patients")
    page.get_by_role("button", name="Another example").click()
    expect(page.get_by_label("age")).to_have_value("41")
    assert page.get_by_label("oldpeak").input_value() == ""  # it is missing in the second example
    page.get_by_label("age").fill("")
    with page.expect_request("**:predict") as sent:
        assert bars(page) == [("disease", "50.0 %"), ("healthy", "50.0 %")]
    assert sent.value.post_data_json["inputs"] == {"age": [-(2**31)], "oldpeak": [-1e38], "thal": ["normal"]}


def test_a_text_is_answered_with_probabilities(page, server):
    choose(page, server, "reviews")
    assert page.get_by_label("text").input_value() == "A good film."
    assert bars(page) == [("fresh", "90.0 %"), ("rotten", "10.0 %")]
    page.get_by_label("text").fill('Two lines,\n"quoted" and 🎬.')
    assert bars(page) == [("rotten", "75.0 %"), ("fresh", "25.0 %")]


def explain(page: Page) -> list[tuple[str, str]]:
    """Ask why, and read off the reasons: what each part adds, in percentage points."""
    page.get_by_role("button", name="Explain the answer").click()
    expect(page.locator("#status")).to_contain_text(re.compile(r"Answered in [\d.]+ ms\."))
    lines = (line.split("\n") for line in page.locator(".reasons li").all_inner_texts())
    return [(name.strip(), points.strip()) for name, points, *_ in lines]


def test_an_answer_is_explained_by_columns(page, server):
    choose(page, server, "patients")
    nothing, age, thal, both = (1 / (1 + math.exp(-score)) for score in (0, 1.3, 2, 3.3))
    added = {"thal": (thal - nothing + both - age) / 2, "age": (age - nothing + both - thal) / 2}
    assert explain(page) == [(name, f"+{100 * share:.1f}") for name, share in added.items()]
    expect(page.locator("#status")).to_contain_text("disease: from 50.0 % without any of it to 96.4 %.")


def test_an_answer_is_explained_by_words_that_are_shaded(page, server):
    choose(page, server, "reviews")
    assert explain(page) == [("good", "+65.0")]
    words = page.locator(".words span")
    assert words.all_inner_texts() == ["A", "good", "film."]
    shades = words.evaluate_all("spans => spans.map(span => getComputedStyle(span).backgroundColor)")
    assert shades[0] == shades[2] != shades[1]


def test_an_answer_is_explained_by_a_heat_map_over_the_photo(page, server):
    choose(page, server, "photos")
    give_photo(page, "chosen", photo("green"))
    assert explain(page) == []  # of one colour: its mean is no other
    expect(page.get_by_role("img", name="The photo, its regions")).to_be_visible()
    assert page.locator(".grid-of-regions span").count() == 64
    assert page.locator(".heat img").evaluate("img => img.naturalWidth") > 0


def test_what_explains_nothing_offers_no_explanation(page, server):
    choose(page, server, "half_plus_two")
    expect(page.get_by_role("button", name="Explain the answer")).to_be_hidden()


def give_photo(page: Page, way: str, content: bytes) -> None:
    """Choose a file, or drop or paste one as the operating system does."""
    if way == "chosen":
        page.get_by_label("image_bytes").set_input_files({"name": "p.png", "mimeType": "image/png", "buffer": content})
        return
    page.evaluate(
        """([way, base64]) => {
          const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], "p.png", { type: "image/png" }));
          const options = { bubbles: true, cancelable: true };
          const event = way === "dropped"
            ? new DragEvent("drop", { ...options, dataTransfer: transfer })
            : new ClipboardEvent("paste", { ...options, clipboardData: transfer });
          document.body.dispatchEvent(event);
        }""",
        [way, base64.b64encode(content).decode()],
    )


@pytest.mark.parametrize("way", ["chosen", "dropped", "pasted"])
def test_a_photo_is_shown_and_answered_with_probabilities(page, server, way):
    choose(page, server, "photos")
    assert bars(page)[0][0] == "red"  # the example
    give_photo(page, way, photo("green"))
    expect(page.get_by_text("p.png")).to_be_visible()
    expect(page.get_by_role("img", name="The image that is sent")).to_be_visible()
    answered = bars(page)
    assert (len(answered), answered[0]) == (5, ("green", "96.4 %"))  # 1 / (1 + 2 exp(-4) + 3 exp(-8))


@pytest.mark.parametrize("kind", ["text", "JPEG cut off", "enormous PNG"])
def test_a_photo_that_cannot_be_used_is_answered_with_the_reason(page, server, kind):
    content, reason = BAD[kind]
    choose(page, server, "photos")
    give_photo(page, "chosen", content)
    expect(page.get_by_text("p.png")).to_be_visible()
    assert complaint(page) == f"The model cannot use this input: {reason}"
    assert page.locator(".bars li").count() == 0


def test_without_a_photo_nothing_is_sent(page, server):
    choose(page, server, "photos")
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("img")).to_be_hidden()
    assert complaint(page) == "Choose an image first."
    expect(page.get_by_label("image_bytes")).to_be_focused()


def test_a_wrong_value_is_answered_with_the_servers_sentence(page, server, troubles):
    choose(page, server, "patients")
    page.get_by_label("age").fill("old")
    request = {"signature_name": "classify", "inputs": {"age": ["old"], "oldpeak": [2.3], "thal": ["fixed"]}}
    sentence = predict(server, "patients", request)["error"]
    assert "old" in sentence
    assert complaint(page) == f"The server refused the request (400): {sentence}"
    assert [line for line in troubles if "400" not in line] == []
    troubles.clear()

    page.get_by_label("age").fill("63")
    assert bars(page)[0] == ("disease", "96.4 %")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_server_that_has_gone_is_told(page, base_paths, troubles):
    with EmbeddedServer({"reviews": base_paths["reviews"]}, OPTIONS) as stopping:
        choose(page, stopping, "reviews")
    assert complaint(page) == f"The server does not answer at {address(stopping)}. Is it still running?"
    # The console's lines and the requests'.
    refused = ("Failed to load resource: net::ERR_CONNECTION_REFUSED", "failed")
    assert all(line.endswith(refused) for line in troubles), troubles
    troubles.clear()


def test_versions_are_chosen_by_number_label_or_as_the_newest(page, server):
    choose(page, server, "patients")
    version = page.get_by_label("Version")
    assert version.locator("option").all_inner_texts() == [
        "Newest (version 2)", "Version 2", "Version 1", "stable (version 1)",
    ]  # fmt: skip
    for chosen, path in (("Version 1", "/versions/1"), ("stable (version 1)", "/labels/stable")):
        version.select_option(chosen)
        expect(page.get_by_label("age")).to_have_value("63")
        with page.expect_request("**:predict") as sent:
            assert bars(page)[0] == ("disease", "96.4 %")
        assert sent.value.url == f"{address(server)}/v1/models/patients{path}:predict"


def test_a_model_from_elsewhere_with_serving_default_only_is_asked_too(page, server):
    choose(page, server, "half_plus_two")
    assert page.get_by_label("x").input_value() == ""
    page.get_by_label("x").fill("3")
    assert ask(page) == []
    assert json.loads(page.locator("#answer pre").inner_text()) == {"outputs": [3.5]}


def test_an_empty_field_of_a_model_from_elsewhere_is_refused_by_the_server(page, server, troubles):
    choose(page, server, "half_plus_two")
    assert "The server refused the request (400)" in complaint(page)
    troubles.clear()


def test_what_people_type_is_never_markup(page, server):
    choose(page, server, "greeting")
    page.get_by_label("text").fill(MARKUP)
    assert bars(page) == [("good", "75.0 %"), ("bad", "25.0 %")]
    assert page.locator("#snippet").inner_text().count(MARKUP) == 1
    assert page.locator("img[src=x]").count() == 0


def saved(page: Page, language: str, folder: Path) -> Path:
    page.get_by_role("tab", name=language).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as file").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


INTERPRETERS = {"curl": ["sh"], "Python": [sys.executable], "Node": [str(NODE)]}


@pytest.mark.parametrize("language", INTERPRETERS)
def test_the_code_to_copy_makes_the_same_request(page, server, tmp_path, language):
    if language == "curl" and shutil.which("curl") is None:
        pytest.skip("there is no curl on the PATH")
    choose(page, server, "reviews")
    page.get_by_label("text").fill('It\'s "good", $HOME and `all` \\ that.\nEND\n${x} 🎬')
    assert bars(page)[0] == ("fresh", "90.0 %")
    script = saved(page, language, tmp_path)
    done = subprocess.run([*INTERPRETERS[language], script], capture_output=True, text=True, timeout=60, check=False)
    assert re.findall(r"fresh|rotten|0\.9\d*", done.stdout)[:3] == ["fresh", "rotten", "0.9"], done.stderr


def test_code_with_a_photo_is_short_to_read_and_whole_to_copy(page, server, tmp_path):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    content = photo("yellow", "BMP", width=200, height=100)
    choose(page, server, "photos")
    give_photo(page, "chosen", content)
    whole = base64.b64encode(content).decode()
    expect(page.locator("#snippet")).to_contain_text(f"{whole[:60]}… ({len(whole)} characters)")
    script = saved(page, "Python", tmp_path)
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_text("Copied, whole.")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert whole in copied
    assert copied == script.read_text()
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=True)
    assert "'labels': [['yellow', " in done.stdout


def test_numbers_are_sent_with_all_their_digits(page, server):
    choose(page, server, "patients")
    page.get_by_label("age").fill("9007199254740993")
    page.get_by_role("tab", name="Node").click()
    with page.expect_request("**:predict") as sent:
        ask(page)
    for text in (sent.value.post_data, page.locator("#snippet").inner_text()):
        assert "9007199254740993" in text
    assert 'const body = "{' in page.locator("#snippet").inner_text()  # a Number would be 9007199254740992


def focus_by_tab(page: Page, name: str) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        label_of = "(document.activeElement.labels?.[0] ?? document.activeElement).textContent"
        if page.evaluate(label_of).strip() == name:
            return
    raise AssertionError(f"Tab does not come to {name}")


def test_a_whole_request_needs_only_the_keyboard(page, server):
    page.goto(address(server))
    expect(page.get_by_label("Model")).to_have_value("greeting")
    expect(page.get_by_label("text")).to_be_visible()
    focus_by_tab(page, "Model")
    page.keyboard.type("patients")
    expect(page.get_by_label("age")).to_be_visible()
    focus_by_tab(page, "age")
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.type("30")
    focus_by_tab(page, "thal")
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.type("normal")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("healthy, 88.1 %.")
    focus_by_tab(page, "curl")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Python")).to_be_focused()
    expect(page.locator("#snippet")).to_contain_text('"age": [30]')


def test_accessibility_of_forms_answers_and_complaints(page, server):
    found = {}
    for model in ("patients", "photos", "reviews"):
        choose(page, server, model)
        found[model] = [*grave_findings(page), *(ask(page) and grave_findings(page))]
        explain(page)
        found[f"{model} explained"] = grave_findings(page)
    give_photo_of_text = BAD["text"][0]
    choose(page, server, "photos")
    give_photo(page, "chosen", give_photo_of_text)
    expect(page.get_by_text("p.png")).to_be_visible()
    assert UNKNOWN in complaint(page)
    found["complaint"] = grave_findings(page)
    assert len(found) == 7 and not any(found.values()), found


@pytest.mark.parametrize("model", ["patients", "photos"])
def test_nothing_is_wider_than_a_phone(page, server, model):
    page.set_viewport_size({"width": 360, "height": 700})
    choose(page, server, model)
    ask(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator(".bars").evaluate("bars => bars.getBoundingClientRect().bottom") <= 700  # it is scrolled to


def get(server: EmbeddedServer, path: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(f"{address(server)}{path}") as response:
            return response.status, response.headers["Content-Security-Policy"], response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Security-Policy"], error.read().decode()


PATHS = ["/", "/playground/main.js", "/playground/models", "/playground/examples?model=reviews&version=1"]


@pytest.mark.parametrize("path", PATHS)
def test_no_page_of_the_playground_loads_or_runs_anything_from_elsewhere(server, path):
    status, policy, _ = get(server, path)
    assert status == 200
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert {directives[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}


def test_without_the_option_there_is_no_playground(base_paths):
    with EmbeddedServer({"reviews": base_paths["reviews"]}, ServerOptions(rest_port=0, grpc_port=0)) as plain:
        assert [get(plain, path) for path in PATHS] == [(404, None, "")] * len(PATHS)


def test_the_command_says_where_the_page_is(base_paths):
    command = [Path(sys.executable).with_name("ingraph"), "serve", "--ui", "--rest-port", "0", "--grpc-port", "0"]
    with subprocess.Popen(
        [*command, "--model", f"reviews={base_paths['reviews']}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            lines = [process.stdout.readline(), process.stdout.readline()]
            found = re.fullmatch(r"playground: (http://127\.0\.0\.1:\d+/)\n", lines[1])
            assert found is not None, lines
            with urllib.request.urlopen(found[1]) as response:
                assert "<title>Playground</title>" in response.read().decode()
        finally:
            process.kill()


def test_examples_of_what_is_not_there_are_refused_in_one_sentence(server):
    for query, status, sentence in (
        ("model=none&version=1", 404, "Servable not found for request: Specific(none, 1)"),
        ("model=reviews&version=../1", 400, "version is '../1', expected the number of a version"),
    ):
        answer = get(server, f"/playground/examples?{query}")
        assert (answer[0], json.loads(answer[2])) == (status, {"error": sentence})
