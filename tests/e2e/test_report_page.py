"""The page of `report --html`, in a real Chromium: what is seen, run, asked for and printed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from shardtool.cli.output import safe
from shardtool.report.model import VERDICTS, History, Loss, Losses, Snapshot, Snapshots, Trash
from tests.conftest import run_shardtool
from tests.e2e.report_world import HOSTILE, SCRIPT, cluster, hostile, several_verdicts
from tests.needs import lacking
from tests.report_world import document, gone, node, report, shard

_QUIET = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
WIDTHS = (360, 768, 1440)
SCHEMES = ("light", "dark")
NAMES = ("several", "hostile", "cluster", "empty", "every", "large")
LOST_COLUMNS = 100_000
LARGE = 1234

pytestmark = pytest.mark.slow  # a browser of its own


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all of these tests."""
    chromium = shutil.which("chromium")
    if chromium is None:
        lacking("chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=_QUIET.split())
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages by their names, each made by the installed command."""
    path = tmp_path_factory.mktemp("pages")
    (path / "empty/db").mkdir(parents=True)
    several_verdicts(path / "several", run_shardtool)
    hostile(path / "hostile", run_shardtool)
    for name, made in (("every", every()), ("large", large())):
        (path / f"{name}.json").write_text(json.dumps(document(made)))
    words: dict[str, list[Any]] = {
        "several": ["--data", path / "several"],
        "hostile": ["--data", path / "hostile"],
        "empty": ["--data", path / "empty"],
        "cluster": cluster(path, run_shardtool),
        "every": [path / "every.json"],
        "large": [path / "large.json"],
    }
    for name in NAMES:
        done = run_shardtool("report", *words[name], "--html", path / f"{name}.html", "-q")
        assert done.returncode in (0, 3), done.stderr
    return {name: path / f"{name}.html" for name in NAMES}


def every() -> Any:
    """Make a report that has something of each kind, with names that mean harm wherever a
    document has a name: what was merged may be anybody's."""
    name = HOSTILE[0]
    shards = [replace(shard(n, verdict), reasons=(name,), details=(name,))
              for n, verdict in enumerate(VERDICTS, 1)]  # fmt: skip
    shards.append(replace(shard(9, "suspect"), id=name, is_shard=False))
    odd = node(
        name,
        shards,
        data=name,
        db=name,
        stage=name,
        stage_words=name,
        next=name,
        advice=name,
        attention=(name,) * 20,
        gone=(replace(gone(8), id=name, at=name, evidence=name),),
        trash=(Trash(name, "leave", 5), Trash(name, name, 5)),
        unseen_processes=2,
        losses=Losses(
            1, 1, {name: 1}, (Loss("00002", name, name, name, name, 1, 1, 0, name, name),)
        ),
        plan=None,
        snapshots=Snapshots(name, True, (Snapshot(name, name, "damaged", True, 1, 1, name),), ""),
        history=History(({"event": name, "shard": name, "error": name},), 1, 3),
    )
    return report(odd, node("db2", gone=(gone(1),)), replaced=(name,))


def large() -> Any:
    """Make a report of a node with very many shards and lost columns."""
    shards = [
        shard(n, "incomplete" if n % 3 else "proven", lost=n % 3) for n in range(1, LARGE + 1)
    ]
    largest = tuple(
        Loss(f"{n % LARGE:05d}", "db", f"series{n}", "c", "name", 9, 9, 0, "2014", "2015")
        for n in range(10_000)
    )
    losses = Losses(9 * LOST_COLUMNS, LOST_COLUMNS, {"name": 9 * LOST_COLUMNS}, largest)
    events = tuple({"event": "deleted", "shard": f"{n:05d}"} for n in range(5000))
    return report(node("big", shards, losses=losses, history=History(events, 5000, 0)))


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Go through all pages."""
    found: str = request.param
    return found


class Opened:
    """A page in a tab of its own, and what it did while it was loaded."""

    def __init__(self, browser: Browser, file: Path, **settings: Any) -> None:
        self.tab: Page = browser.new_page(**settings)
        self.told: list[str] = []
        self.asked: list[str] = []
        self.tab.on("console", lambda message: self.told.append(message.text))
        self.tab.on("pageerror", lambda error: self.told.append(str(error)))
        self.tab.on("dialog", lambda dialog: self.told.append(dialog.message))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(file.as_uri())

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *error: object) -> None:
        self.tab.close()

    def is_of(self, script: str) -> Any:
        """Return what a script says of the page."""
        return self.tab.evaluate(script)

    @property
    def text(self) -> str:
        """All that can be read when each list is open."""
        self.is_of("document.querySelectorAll('details').forEach(d => d.open = true)")
        return self.tab.inner_text("body")


def test_nothing_is_run_asked_for_or_complained_about(
    name: str, browser: Browser, pages: dict[str, Path]
) -> None:
    with Opened(browser, pages[name]) as page:
        page.tab.wait_for_timeout(50)
        assert page.told == []
        assert page.asked == [pages[name].as_uri()]
        assert page.is_of("document.scripts.length") == 0
        assert (
            page.is_of("document.querySelectorAll('img, iframe, object, link, base, form').length")
            == 0
        )
        handlers = "[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())"
        assert [one for one in page.is_of(handlers) if one.startswith("on")] == []
        assert page.tab.title() not in ("run", "1")


def test_the_policy_of_the_page_lets_no_script_run(
    browser: Browser, pages: dict[str, Path]
) -> None:
    with Opened(browser, pages["several"]) as page:
        page.is_of(
            "{ const s = document.createElement('script'); s.textContent = 'document.title = 1';"
            " document.body.append(s); }"
        )
        assert page.tab.title() != "1"
        assert any("Content Security Policy" in line for line in page.told)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_itself_never_scrolls_sideways(
    name: str, width: int, browser: Browser, pages: dict[str, Path]
) -> None:
    with Opened(browser, pages[name], viewport={"width": width, "height": 900}) as page:
        page.is_of("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.is_of("document.documentElement.scrollWidth") <= width
        # Nor is anything cut off: what is wider than its place is in a box that scrolls.
        outside = page.is_of(
            "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, .defs') &&"
            f" e.getBoundingClientRect().right > {width} + 1).map(e => e.outerHTML.slice(0, 200))"
        )
        assert outside == []


def test_names_are_text_and_are_escaped(browser: Browser, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["hostile"]) as page:
        text = page.text
    for one in HOSTILE:
        assert safe(one.replace("\x00", "\x01")) in text
    for shown in ("\\xff\\xfe", "a\\x1b]0;owned\\x07", "\\u202efdp.exe", "<b>bold", "n" * 255):
        assert shown in text
    assert all(part.isprintable() for line in text.splitlines() for part in line.split("\t"))


def test_a_document_that_was_merged_is_text_wherever_it_may_have_a_name(
    browser: Browser, pages: dict[str, Path]
) -> None:
    with Opened(browser, pages["every"]) as page:
        assert page.text.count(SCRIPT) > 30
        assert page.is_of("document.querySelectorAll('main script').length") == 0


def test_each_verdict_is_shown_by_word_shape_and_row(
    browser: Browser, pages: dict[str, Path]
) -> None:
    with Opened(browser, pages["every"]) as page:
        for verdict in VERDICTS:
            badge = page.tab.locator(f"td .v-{verdict}").first
            assert badge.inner_text() == verdict
            assert badge.locator(f"use[href='#g-{verdict}']").count() == 1
            assert page.tab.locator(f".rows .v-{verdict}").count() == 1
            assert page.tab.locator(f".plot g.v-{verdict} rect").count() == 1
        shapes = [page.tab.locator(f"#g-{verdict}").inner_html() for verdict in VERDICTS]
        assert len(set(shapes)) == len(VERDICTS)
    with Opened(browser, pages["several"]) as page:
        shown = page.tab.locator("section#disk td .v").all_inner_texts()
        assert {"proven", "incomplete", "marked", "suspect", "unmigrated"} <= set(shown)


CONTRASTS = """
() => {
  const parse = c => (c.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = c => c.slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const seen = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || e.closest('.defs, title')) continue;
    const style = getComputedStyle(e);
    const ink = parse(e instanceof SVGElement ? style.fill : style.color);
    const paper = behind(e);
    const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x);
    seen[`${ink} on ${paper}: ${e.localName}.${e.className}`] = (a + .05) / (b + .05);
  }
  for (const e of document.querySelectorAll('.plot rect, .glyph')) {
    const ink = parse(getComputedStyle(e).fill), paper = behind(e.closest('.plot, .glyph'));
    const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x);
    seen[`${ink} on ${paper}: ${e.localName}`] = (a + .05) / (b + .05);
  }
  return seen;
}"""


@pytest.mark.parametrize("media", ["screen", "print"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_whatever_can_be_read_has_a_contrast_of_4_5(
    scheme: Any, media: Any, browser: Browser, pages: dict[str, Path]
) -> None:
    for name in ("several", "every"):
        with Opened(browser, pages[name], color_scheme=scheme) as page:
            page.tab.emulate_media(media=media, color_scheme=scheme)
            found = page.is_of(CONTRASTS)
        assert len(found) > 15
        assert {what: ratio for what, ratio in found.items() if ratio < 4.5} == {}


def test_the_dark_scheme_is_dark_and_paper_is_white(
    browser: Browser, pages: dict[str, Path]
) -> None:
    color = "getComputedStyle(document.body).backgroundColor"
    with Opened(browser, pages["several"], color_scheme="light") as page:
        assert page.is_of(color) == "rgb(255, 255, 255)"
    with Opened(browser, pages["several"], color_scheme="dark") as page:
        assert max(map(int, page.is_of(f"{color}.match(/\\d+/g)"))) < 40
        page.tab.emulate_media(media="print")
        assert page.is_of(color) == "rgb(255, 255, 255)"


def test_print_shows_what_is_folded_and_makes_a_pdf(
    browser: Browser, pages: dict[str, Path]
) -> None:
    seen = (
        "[...document.querySelectorAll('details:not([open]) tbody tr:last-child')]"
        ".map(e => e.checkVisibility())"
    )
    with Opened(browser, pages["large"]) as page:
        assert page.is_of(seen)
        assert not any(page.is_of(seen))
        page.tab.emulate_media(media="print")
        assert all(page.is_of(seen))
    with Opened(browser, pages["several"]) as page:
        content = page.tab.pdf(format="A4")
        assert content.startswith(b"%PDF-")
        assert content.count(b"/Type /Page\n") > 1


def test_it_can_be_read_without_eyes(name: str, browser: Browser, pages: dict[str, Path]) -> None:
    with Opened(browser, pages[name]) as page:
        assert page.is_of("document.documentElement.lang") == "en"
        levels = page.is_of(
            "[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.localName[1])"
        )
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b - a <= 1 for a, b in pairwise(levels))
        assert page.tab.locator("th:not([scope])").count() == 0
        rows = "tbody tr:not(:has(th[scope=row]))"
        assert page.tab.locator(rows).count() == 0
        assert page.tab.locator(".scroll:not([aria-label][tabindex='0'][role=region])").count() == 0
        assert page.tab.locator("table").count() == page.tab.locator(".scroll > table").count()
        ids = page.is_of("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids))
        for link in page.is_of(
            "[...document.querySelectorAll('a, use')].map(a => a.getAttribute('href'))"
        ):
            assert link[0] == "#"
            assert link[1:] in ids
        assert (
            page.tab.locator("svg:not([aria-hidden=true]):not([role=img][aria-label])").count() == 0
        )


def test_the_timeline_has_a_mark_for_each_shard_and_says_so_in_words(
    browser: Browser, pages: dict[str, Path]
) -> None:
    with Opened(browser, pages["large"]) as page:
        plot = page.tab.locator(".plot")
        assert plot.locator("rect").count() == LARGE
        assert f"{LARGE:,} old shards from 2012-01-06 to " in str(plot.get_attribute("aria-label"))
        title = plot.locator("rect title").first.text_content()
        assert "00003, proven, " in str(title)
    with Opened(browser, pages["empty"]) as page:
        assert page.tab.locator(".plot").count() == 0
        assert "There are no old shards" in page.tab.inner_text("h1")


def test_long_lists_are_cut_and_say_where_the_rest_is(
    browser: Browser, pages: dict[str, Path]
) -> None:
    with Opened(browser, pages["large"]) as page:
        text = page.text
        assert page.tab.locator("section#losses tbody tr").count() < 500
        assert page.tab.locator("section#disk tbody tr").count() == LARGE
    assert "200 of 100,000 are shown." in text
    assert "shardtool verify --list" in text
    assert "200 of 5,000 steps are shown. All of them: shardtool history" in text
    assert pages["large"].stat().st_size < 4 << 20


def test_it_says_what_the_state_is_and_what_to_do_and_who_made_it(
    browser: Browser, pages: dict[str, Path]
) -> None:
    with Opened(browser, pages["several"]) as page:
        heading = page.tab.inner_text("h1")
        assert heading.startswith("1 of 7 old shards is proven; 10 values of 2 shards exist")
        assert "Next: shardtool" in page.text
        about = page.tab.inner_text("#about")
        assert "shardtool 0." in about
        assert "report --data" in about
        receipt = page.tab.locator("#proofs .hash").first.inner_text()
        assert len(receipt) == 64
    with Opened(browser, pages["cluster"]) as page:
        assert page.tab.inner_text("h1").startswith("2 of 3 old shards are proven everywhere")
        assert page.tab.inner_text("#about").count("SHA-256") == 3
        assert page.tab.locator("#nodes tbody tr").count() == 3
