"""The search page as a person uses it: in Chromium, run with `-m browser`."""

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from modeling_lotlip.data.scenes import load_scenes, make_scene
from tests.helpers.browser import open_chromium, serve
from tests.helpers.images import save_images


pytestmark = pytest.mark.browser
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return save_images(tmp_path_factory.mktemp("photos"), load_scenes(14, seed=5)["image"])


@pytest.fixture(scope="module")
def trips(tmp_path_factory) -> Path:
    """Twenty images of two days in two folders, and two copies of one."""
    folder = tmp_path_factory.mktemp("trips")
    for trip in ("sea", "hills"):
        (folder / trip).mkdir()
    for index in range(20):
        exif = Image.Exif()
        exif[0x0132] = f"2024:05:{1 + index % 2:02} 12:00:00"
        trip = "hills"
        if index < 5:
            trip = "sea"
        make_scene(5, index).draw().save(folder / trip / f"{index}.png", exif=exif)
    for copy in ("sea/copy.png", "hills/copy.png"):
        shutil.copy(folder / "sea" / "1.png", folder / copy)
    return folder


@pytest.fixture(scope="module")
def chromium():
    with open_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(photos, model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    arguments = (photos, "--model", model_dir, "--index_dir", folder / "indices")
    with serve(folder / "output.txt", *arguments) as (address, _):
        yield address


@pytest.fixture(scope="module")
def served_trips(trips, model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    arguments = (trips, "--model", model_dir, "--index_dir", folder / "indices", "--k", 6)
    with serve(folder / "output.txt", *arguments) as (address, _):
        yield address


@pytest.fixture
def open_page(chromium):
    """Opens an address; whatever goes wrong in the page, or would be fetched from elsewhere, fails the test."""
    problems = []
    contexts = []
    requested = []
    local = []

    def note_error(message) -> None:
        if message.type == "error":
            problems.append(message.text)

    def open_address(address: str, viewport: dict = DESKTOP, color_scheme: str = "light"):
        contexts.append(chromium.new_context(viewport=viewport, color_scheme=color_scheme))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", note_error)
        page.on("request", lambda request: requested.append(request.url))
        page.goto(address)
        page.wait_for_selector("#description textarea")
        local.extend((address, "data:", "blob:"))
        return page

    yield open_address
    for context in contexts:
        context.close()
    assert problems == []
    assert all(url.startswith(tuple(local)) for url in requested)


def search(page, text: str) -> None:
    page.fill("#description textarea", text)
    page.click("#search")


def unfold_weak(page, what: str = "[data-time]") -> None:
    """Waits for results, and opens those that are weak, as many are of a model that was not trained."""
    page.wait_for_selector(f"#results {what}", state="attached")
    if page.locator("#results details.weak:not([open])").is_visible():
        page.click("#results details.weak > summary")


def upload(page, where: str, path: Path) -> None:
    page.set_input_files(f"{where} input[type=file]", path)
    page.wait_for_selector(f"{where} img")


def fits_its_window(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


# Gradio fades what is being computed
IS_OPAQUE = """[...document.querySelectorAll('.search-page')].every(part => {
    for (let element = part; element; element = element.parentElement)
        if (getComputedStyle(element).opacity !== '1') return false;
    return true;
})"""


def serious_problems(page) -> list[str]:
    """What axe-core finds on the page as it is that keeps someone from using it: each rule with its element."""
    from axe_playwright_python.sync_playwright import Axe  # of the extra that only these tests need

    page.wait_for_function(IS_OPAQUE)
    violations = Axe().run(page).response["violations"]
    problems = []
    for found in violations:
        if found["impact"] in ("serious", "critical"):
            problems += [f"{found['id']}: {node['html']}" for node in found["nodes"]]
    return problems


def test_search_by_description_by_image_and_by_both(address, open_page, photos):
    page = open_page(address)
    page.wait_for_selector("#status >> text=/14 images in/")
    page.click("#search")
    page.wait_for_selector("#results >> text=/nothing to search for yet/")
    search(page, "A red boat. The ground is sand. A house.")
    unfold_weak(page)
    assert page.locator("#results .card").count() == 12
    card = page.locator("#results .card").nth(1)
    similarities = [float(text) for text in page.locator(".head > :last-child").all_inner_texts()]
    assert similarities == sorted(similarities, reverse=True)
    sentences = card.locator("button.sentence")
    assert [text.split("\n")[0] for text in sentences.all_inner_texts()][1:] == ["The ground is sand", "A house"]
    assert re.fullmatch(r"-?[01]\.\d{3}", sentences.nth(1).locator(".value").inner_text())

    # the heat map of a sentence, of another one, and the image again
    image = card.locator("img").get_attribute("src")
    maps = []
    for number in (0, 1):
        sentences.nth(number).click()
        card.locator(".note >> text=/Red/").wait_for()
        maps.append(card.locator("img").get_attribute("src"))
        assert sentences.nth(number).get_attribute("aria-pressed") == "true"
    assert len({image, *maps}) == 3
    sentences.nth(1).press("Enter")
    assert card.locator("img").get_attribute("src") == image

    # those that are like it; then the same words: the answer of before comes again
    name = card.get_attribute("data-name")
    card.locator("text=more like this").click()
    page.wait_for_selector(f"#results .card:first-child[data-name='{name}'] >> text=1.000")
    assert page.locator("#results button.sentence").count() == 0
    search(page, "A red boat. The ground is sand. A house.")
    unfold_weak(page, "button.sentence")

    upload(page, "#query-image", photos / "9.png")
    page.fill("#description textarea", "")
    page.click("#search")
    first = page.locator("#results .card").first
    first.locator("text=9.png").wait_for()
    assert "1.000" in first.inner_text()
    assert first.locator("button.sentence").count() == 0
    search(page, "A tree")
    unfold_weak(page, "button.sentence")
    assert "1.000" not in first.inner_text()


def cards(page, where: str = "#results .cards >") -> list[str]:
    """The names of the images that are shown, also of those that are folded."""
    return page.locator(f"{where} .card").evaluate_all("cards => cards.map(card => card.dataset.name)")


def show_all(page) -> None:
    while page.locator("#results .show-more").is_visible():
        num = len(cards(page))
        page.click("#results .show-more")
        page.wait_for_function("num => document.querySelectorAll('#results .cards > .card').length > num", arg=num)
    unfold_weak(page)


def test_more_results_and_copies_and_filters(open_page, served_trips):
    page = open_page(served_trips)
    page.wait_for_selector("#status >> text=/22 images in/")
    search(page, "A red boat")
    unfold_weak(page)
    first = cards(page)
    assert len(first) == 6
    show_all(page)
    shown = cards(page)
    assert len(set(shown)) == len(shown)
    assert set(first) < set(shown)

    same = {"sea/1.png", "sea/copy.png", "hills/copy.png"}
    (name,) = same & set(shown)
    card = page.locator(f"#results .cards > .card[data-name='{name}']")
    card.locator("button.unfold").click()
    card.locator(".same .card").first.wait_for()
    assert {name, *cards(page, f"#results .card[data-name='{name}'] .same >")} >= same
    card.locator("button.unfold").click()
    assert not card.locator(".same").is_visible()

    page.click("#filters >> text=Filters")
    page.fill("#folder input", "sea")
    page.press("#folder input", "Enter")
    page.fill("#taken-from input, #taken-from textarea", "2024-05-02")
    page.click("#search")
    page.wait_for_selector("#results [role=status] >> text=/images in the folder sea taken from 2024-05-02/")
    assert set(cards(page)) <= {"sea/1.png", "sea/3.png", "sea/copy.png"}
    assert cards(page) != []
    assert fits_its_window(page)


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport, min_width", [(DESKTOP, 200), (PHONE, 300)], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious_in_any_state(open_page, served_trips, viewport, min_width, color_scheme):
    """axe-core finds nothing serious in any state of the page."""
    page = open_page(served_trips, viewport, color_scheme=color_scheme)
    page.wait_for_selector("#status >> text=/22 images in/")
    problems = {"start": serious_problems(page)}
    page.click("#filters button")
    page.wait_for_selector("#folder input")
    problems["filters"] = serious_problems(page)
    search(page, "A red лодка of unbelievablylongwords" + "x" * 90 + ". " + "The ground is sand. " * 60)
    unfold_weak(page)
    width = page.locator("#results .card").first.bounding_box()["width"]
    assert fits_its_window(page)
    assert width > min_width
    show_all(page)
    page.locator("button.unfold").first.click()
    page.wait_for_selector(".same .card")
    page.locator("#results .card button.sentence").first.click()
    page.wait_for_selector("#results .note >> text=/Red/")
    problems["results"] = serious_problems(page)
    page.locator("#results .card .frame").first.click()
    page.wait_for_selector("#results dialog[open]")
    problems["a large image"] = serious_problems(page)
    page.keyboard.press("Escape")
    page.fill("#description textarea", "")
    page.click("#search")
    page.wait_for_selector("#results [role=alert]")
    problems["what is missing"] = serious_problems(page)
    assert problems == dict.fromkeys(problems, [])


def tab_to(page, selector: str) -> None:
    """Presses the tabulator until an element has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"the tabulator does not reach {selector}")


def test_the_page_can_be_used_by_keyboard_alone(address, open_page):
    page = open_page(address)
    page.wait_for_selector("#status >> text=/14 images in/")
    assert page.locator("#results").inner_text().startswith("Describe an image")
    assert page.locator("#results .card").count() == 12, "images of the collection, before a search"
    tab_to(page, "#description textarea")
    page.keyboard.type("A red boat")
    page.keyboard.press("Shift+Enter")
    page.wait_for_selector("#results [data-time]", state="attached")
    if page.locator("#results details.weak:not([open])").is_visible():
        tab_to(page, "#results details.weak > summary")
        page.keyboard.press("Enter")
    tab_to(page, "#results .card .frame")
    page.keyboard.press("Enter")
    page.wait_for_selector("#results dialog[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#results dialog:not([open])", state="attached")
    assert page.evaluate("document.activeElement.matches('#results .card .frame')"), "the focus comes back"
    tab_to(page, "#results .card button.sentence")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    page.keyboard.press("Enter")
    page.wait_for_selector("#results .note >> text=/Red/")
    assert outline == "solid", "one sees where the focus is"


def test_the_server_goes_away(chromium, photos, model_dir, tmp_path):
    arguments = (photos, "--model", model_dir, "--index_dir", tmp_path / "indices")
    with serve(tmp_path / "output.txt", *arguments) as (address, process):
        page = chromium.new_page()
        page.goto(address)
        page.wait_for_selector("#status >> text=/14 images in/")
        search(page, "A red boat")
        unfold_weak(page)
        sentence = page.locator("#results .card").first.locator("button.sentence")
        process.kill()
        process.wait()
        sentence.click()
        page.wait_for_selector("#results .note >> text=/is the page still being served/")
        page.close()


def test_another_web_site_gets_no_answer_but_its_links_work(address, chromium):
    page = chromium.new_context().new_page()
    statuses = []

    def note_status(answer) -> None:
        if answer.url.startswith(address):
            statuses.append(answer.status)

    body = f'<a href="{address}">a link</a>'
    page.route("http://localhost:1/", lambda route: route.fulfill(body=body, content_type="text/html"))
    page.on("response", note_status)
    page.goto("http://localhost:1/")
    ask = "address => Promise.allSettled(['GET', 'POST'].map(method => fetch(address + '/config', {method})))"
    assert {each["status"] for each in page.evaluate(ask, address)} == {"rejected"}  # no answer may be read
    page.evaluate(ask.replace("{method}", "{method, mode: 'no-cors'}"), address)
    assert set(statuses) <= {403}
    page.click("text=a link")
    page.wait_for_selector("#description textarea")
    page.context.close()


def test_an_empty_folder_that_fills(open_page, photos, model_dir, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    arguments = (folder, "--model", model_dir, "--index_dir", tmp_path / "indices")
    with serve(tmp_path / "output.txt", *arguments) as (address, _):
        page = open_page(address)
        page.wait_for_selector("#status >> text=/0 images in .*empty/")
        while "Put images into it" not in page.inner_text("#results"):  # the folder is still looked through at first
            search(page, "a boat")
            page.wait_for_timeout(1000)
        assert re.search("There is no image in .*empty. Put images into it", page.inner_text("#results"))
        page.close()  # a reload would abort what Gradio still streams, which the console calls an error
        page = open_page(address)
        page.wait_for_selector("#status >> text=/0 images in .*empty/")
        shutil.copytree(photos, folder, dirs_exist_ok=True)
        (folder / "broken.png").write_bytes((photos / "0.png").read_bytes()[:100])
        page.click("role=button[name='Rescan folder']")
        page.wait_for_selector("#status >> text=/14 images in/")
        page.wait_for_selector("#results .card")  # without a search
        page.click("text=Left out: 1 file that cannot be read as an image")
        page.wait_for_selector("#status >> text=broken.png")
