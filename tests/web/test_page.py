"""The status page as a document: sound, its own, readable, true, and proof against what others write into names."""

import re
from dataclasses import fields, replace
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reaper.core.disk import DiskUsage, Room
from reaper.core.model import Outcome
from reaper.core.savings import Prices, Rates, Total
from reaper.service import page
from reaper.service.page import sections
from reaper.service.page.markup import LONGEST, clean
from reaper.service.status import Deletion, EndpointStatus, OpenLease, PolicyStatus, Reapable, Status
from tests.web.document import Document
from tests.web.world import (
    DAY,
    HOUR,
    MINUTE,
    NASTY,
    NOW,
    SECOND,
    WORLDS,
    capped,
    fresh,
    full,
    healthy,
    leak,
    leaking,
    leased,
    look,
    started,
    troubled,
)


def read(status: Status, now: datetime = NOW, **options: Any) -> Document:
    return Document(page.render(status, now, **options))


def headline(status: Status) -> tuple[str, str]:
    document = read(status)
    (text,) = document.text("h1")
    (level,) = [value for value in document.values("class") if value.startswith("verdict ")]
    return level.removeprefix("verdict "), text


@pytest.mark.parametrize("world", WORLDS)
def test_it_is_sound(world: str) -> None:
    document = read(WORLDS[world]())
    assert document.doctype == "doctype html"
    ids = document.values("id")
    assert len(ids) == len(set(ids))
    targets = [href[1:] for href in document.values("href") if href.startswith("#")]
    assert set(targets) | set(document.values("aria-labelledby")) <= set(ids)
    assert len(document.all("h1")) == len(document.all("main")) == len(document.all("title")) == 1
    assert len(document.all("caption")) == len(document.all("table"))
    assert {head["scope"] for head in document.all("th")} <= {"col", "row"}
    for time in document.all("time"):
        assert datetime.fromisoformat(time["datetime"]).strftime("%Y-%m-%d %H:%M:%S UTC") == time["title"]


@pytest.mark.parametrize("world", WORLDS)
def test_it_loads_nothing_from_anywhere(world: str) -> None:
    document = read(WORLDS[world]())
    assert document.values("src") == []
    (icon,) = [link["href"] for link in document.all("link")]
    assert icon.startswith("data:image/svg+xml,%3Csvg")
    links = {href for href in document.values("href") if href != icon and not href.startswith("#")}
    assert links == {"/metrics", "/healthz", "/readyz", "/?refresh=off"}
    assert not re.search(r"url\(|@import|expression", page.STYLE)


def test_it_reloads_unless_told_to_stand_still() -> None:
    assert "refresh" in read(healthy()).values("http-equiv")
    still = read(healthy(), reload=False)
    assert still.values("http-equiv") == []
    assert "/" in still.values("href")


# -- what it says ------------------------------------------------------------------------------------------------------


def test_the_headline_answers_at_once() -> None:
    assert headline(healthy()) == ("good", "Nothing leaks")
    young = healthy()
    young.endpoints["local"].young = 12
    assert headline(young) == ("quiet", "Nothing is reapable yet; 12 owned resources run, and only their age keeps them")
    suspect = healthy()
    suspect.endpoints["local"].suspect_since, suspect.endpoints["local"].events_error = NOW, "connection refused"
    assert headline(suspect) == ("warn", "1 of 3 endpoints may be down: local")
    assert headline(leaking()) == ("warn", "37 resources are reapable, the oldest for 3 h 20 min")
    assert headline(troubled()) == ("bad", "1 of 3 endpoints is down: gpu-1")
    assert headline(full()) == ("bad", "6 of 100 endpoints are down: gpu-00, gpu-17, gpu-34 and 3 more")
    assert headline(capped()) == ("bad", "The deletion cap holds the sweeps back on gpu-1")
    assert headline(fresh()) == ("quiet", "Just started: nothing has been swept yet")
    assert headline(WORLDS["unconfigured"]()) == ("warn", "There is nothing to look after: no endpoint is configured")
    half = healthy()
    half.endpoints["gpu-1"].up = None
    assert headline(half) == ("quiet", "Nothing leaks on 2 of 3 endpoints")
    stuck = healthy()
    stuck.beat_at = NOW - HOUR
    assert headline(stuck) == ("bad", "Nothing is being swept: the service is stuck")


def test_one_leftover_is_reported_in_the_singular() -> None:
    status = leaking()
    status.endpoints["local"].reapable = 0
    assert headline(status) == ("warn", "1 resource is reapable for 3 h 20 min")
    status.endpoints["local"].oldest = status.endpoints["rl-org"].oldest = None
    assert headline(status) == ("warn", "1 resource is reapable")


def test_what_went_wrong_is_reported() -> None:
    text = page.render(troubled(), NOW)
    for words in (
        "The last reload was refused",
        "No space left on device",
        "connection refused (after 4 tries in 22 s)",
        "Its clock is 4 min behind this one",
        "Call after call failed",
        "10 of the last 49 failed",
        "Events are not followed now.",
        "The leases cannot be kept: none is granted",
        "device or resource busy",
    ):
        assert words in text, words
    text = page.render(capped(), NOW)
    assert "Deletion cap: 2431 would have gone, max_deletions = 1000" in text
    assert "The service is shutting down." in text
    assert "and 2,368 more: reaper list has them all" in text


def test_of_what_was_never_listed_no_number_is_said() -> None:
    """That it has nothing reapable is as unknown as what it holds."""
    status = healthy()
    for name in [name for name in status.endpoints if name != "gpu-1"]:
        del status.endpoints[name]
    down = status.endpoints["gpu-1"]
    assert sections.endpoints(status, NOW).count(">0<") == 1
    down.up, down.held, down.states, down.listed_at, down.error = False, 0, {}, None, "it does not answer"
    assert ">0<" not in sections.endpoints(status, NOW)


def test_a_disk_is_reported_by_how_full_it_is() -> None:
    status = healthy()
    local, gpu = status.endpoints["local"], status.endpoints["gpu-1"]
    local.disk = DiskUsage("/var/lib/docker", {"bytes": Room(92, 8), "inodes": Room(3, 97)})
    gpu.disk = DiskUsage(problem="the engine runs on gpu-7")
    assert "Disk (/var/lib/docker): 92% of bytes, 3% of inodes in use." in page.render(status, NOW)
    assert "Its disk is not measured: the engine runs on gpu-7." in page.render(status, NOW)
    assert headline(status)[0] == "good"
    local.pressed = True
    assert "in use; that is too much." in page.render(status, NOW)
    local.in_the_way = "the disk (/var/lib/docker) is under pressure; image x (4 GiB): used by y"
    assert "image x (4 GiB): used by y" in page.render(status, NOW)
    assert headline(status) == ("bad", "The disk is fuller than low, and nothing more may be deleted, on local")


def test_every_empty_section_says_why() -> None:
    assert len([c for c in read(fresh()).values("class") if c == "empty"]) == 4
    assert "No leases can be taken" in page.render(fresh(), NOW)
    leased(status := fresh())
    assert "No run holds one." in page.render(status, NOW)
    assert "No endpoint has been swept yet." in page.render(fresh(), NOW)
    assert len([c for c in read(WORLDS["unconfigured"]()).values("class") if c == "empty"]) == 9
    status = healthy()
    status.endpoints["local"].up = False
    assert "Nothing, on the endpoints that could be listed." in page.render(status, NOW)


def test_who_holds_what_is_reported() -> None:
    status = healthy()
    alone = OpenLease("7f3a", "pid 4711 on gpu-1", "ada", "harbor run", ("label run=x and name chess-*",), NOW - HOUR, True)
    leased(status, alone, more=3)
    text = page.render(status, NOW)
    for words in (
        "pid 4711 on gpu-1",
        "harbor run",
        "not heard of",
        "label run=x and name chess-*",
        "3 further leases not shown",
    ):
        assert words in text, words


def test_what_the_deletions_were_worth_is_reported_with_the_sum() -> None:
    status = healthy()
    status.prices = Prices("EUR", Rates(container=1.0))
    assert "Nothing yet. What deletions avoid" in page.render(status, NOW)
    status.worth = {
        ("local", "harbor", "old-containers"): Total(leaks=1200, hours=4800.0, freed=2**31, cost=4800.0, failures=2),
        ("gpu-1", "label team=rl", "(lease)"): Total(leaks=1, hours=2.5, unmeasured=1),
    }
    text = page.render(status, NOW)
    for part in ("1,200", "4,800.0", "2.0 GiB", "4,800.00 EUR", "label team=rl", "(lease)", "1,201", "4,802.5"):
        assert part in text
    status.worth["local", "harbor", "old-containers"].violations = 1
    assert '<span class="bad">1</span>' in page.render(status, NOW)


def test_of_many_endpoints_the_calm_ones_are_folded_away() -> None:
    document = read(full())
    assert "85 endpoints up, with nothing reapable" in document.text("summary")
    assert len(document.all("details")) == 6  # endpoints, reapable, and the four policies
    assert read(healthy()).all("details") == []


def test_of_many_endpoints_that_leak_the_worst_are_shown_and_the_rest_is_summed_up() -> None:
    status = started(*(f"gpu-{number:03}" for number in range(200)))
    for number, endpoint in enumerate(status.endpoints.values()):
        look(endpoint, running=3, stopped=0, ago=MINUTE)
        leak(endpoint, 1 + number)
    failing = list(status.endpoints.values())[:30]
    for endpoint in failing:
        endpoint.up, endpoint.error = False, "connection refused"
        endpoint.events, endpoint.events_error = False, "connection refused"
    document = read(status)
    leaking = sum(endpoint.reapable for endpoint in list(status.endpoints.values())[30:])
    assert f"170 more endpoints, with {leaking:,} reapable resources in all" in document.text("summary")
    text = page.render(status, NOW)
    assert text.index("gpu-029") < text.index("170 more endpoints") < text.index("gpu-030")
    assert text.count("connection refused") == 30  # once for each, and not once more for its events
    for endpoint in failing:
        endpoint.up, endpoint.error = True, None
    assert "180 more endpoints, with 16,290 reapable resources in all" in page.render(status, NOW)


def test_a_card_says_what_its_policy_takes() -> None:
    status = healthy()
    status.policies["old-containers"].takes = "containers older than 24 h, on gpu-1"
    assert "containers older than 24 h, on gpu-1" in page.render(status, NOW)


def test_a_time_that_has_passed_or_not_come_is_reported_as_such() -> None:
    status = healthy()
    times = iter((NOW, NOW - 5 * SECOND, NOW - HOUR))
    for endpoint, policy in zip(status.endpoints.values(), status.policies.values(), strict=False):
        endpoint.listed_at, policy.next_at = NOW + HOUR, next(times)
    text = page.render(status, NOW)
    assert "overdue by 1 h" in text
    assert text.count(">now</time>") == 2
    assert text.count(">in 1 h</time>") == 3


# -- what others wrote -------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(
    [
        NASTY,
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='x",
        "</style><script>",
        "&lt;b&gt;",
        "\u202e\u2066\u200b",
        "\ud800",
        "<!--",
    ]
)


def filled(text: str) -> Status:
    """Everything that is a text is this text."""
    status = Status(text, NOW - DAY, config_file=text, loaded_at=NOW, reload_error=f"x{text}", journal_error=f"x{text}")
    status.beat_at = status.loop_at = NOW
    status.endpoints = {text: EndpointStatus(text, text, False, NOW, text, NOW, NOW, 3, {text: 3}, 1, cap=f"x{text}")}
    status.endpoints[text].shown = (Reapable(text, text, text, text, text, NOW),)
    status.policies = {text: PolicyStatus(text, text, (text,), NOW, {text: NOW}, {text: NOW}, text)}
    for outcome in Outcome:
        status.deletions.append(Deletion(NOW, text, text, text, text, text, outcome, f"x{text}", text))
    return status


def test_a_deletion_says_that_there_is_evidence_and_links_to_nothing() -> None:
    status = Status("1", NOW, loaded_at=NOW)
    for evidence in (None, "0123456789ab"):
        status.deletions.append(Deletion(NOW, "local", "container", "a", "p", "old", Outcome.DELETED, "", evidence))
    assert page.render(status, NOW).count("reaper history --show") == 1
    document = read(status)
    assert "reaper history --show 0123456789ab" in document.text("code")
    assert [href for href in document.values("href") if "0123456789ab" in href] == []


@given(TEXT)
@example(NASTY)
def test_no_text_ever_becomes_markup(text: str) -> None:
    document = read(filled(text))  # which itself knows only the elements of the page, and no on... or style attribute
    harmless = read(filled("harmless"))
    without_breaks = [entry for entry in document.shape() if entry[0] != "br"]
    assert without_breaks == harmless.shape()
    assert {c for v in document.values("class") for c in v.split()} == {
        c for v in harmless.values("class") for c in v.split()
    }
    assert document.values("href") == harmless.values("href")
    page.render(filled(text), NOW).encode()


@given(TEXT)
def test_no_text_turns_or_hides_its_neighbours(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.isprintable()
    if text.isprintable():
        assert cleaned == text


def test_a_text_without_end_is_cut() -> None:
    assert clean("x" * 10_000) == "x" * LONGEST + "…"


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_any_time_can_be_told(now: datetime, then: datetime) -> None:
    status = filled("x")
    things: list[Status | EndpointStatus | PolicyStatus] = [status, *status.endpoints.values(), *status.policies.values()]
    for thing in things:
        for field in fields(thing):
            if isinstance(getattr(thing, field.name), datetime):
                setattr(thing, field.name, then)
    status.deletions.appendleft(replace(status.deletions[0], at=then))
    read(status, now)


# -- how it looks ------------------------------------------------------------------------------------------------------


def _tokens(css: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6});", css))


LIGHT = _tokens(page.STYLE.split("@media (prefers-color-scheme: dark)")[0])
DARK = _tokens(page.STYLE.split("@media (prefers-color-scheme: dark)")[1])


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("tokens", [LIGHT, DARK], ids=["light", "dark"])
def test_all_text_has_contrast(tokens: dict[str, str]) -> None:
    assert set(LIGHT) == set(DARK)
    levels = ("good", "warn", "bad", "quiet")
    pairs = list(product(("text", "muted", "link", *levels), ("page", "card")))
    pairs += [(level, f"{level}-back") for level in levels]
    pairs += [("text", f"{level}-back") for level in levels]
    for fore, back in pairs:
        assert contrast(tokens[fore], tokens[back]) >= 4.5, (fore, back)


def test_contrast_is_measured_right() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_colours_stand_in_the_tokens_only() -> None:
    rules = re.sub(r":root \{.*?\}", "", page.STYLE, flags=re.DOTALL)
    assert re.findall(r"#[0-9a-f]{3,8}\b", rules) == []
    assert set(re.findall(r"var\(--([\w-]+)\)", page.STYLE)) == set(LIGHT)


def test_a_full_page_costs_little() -> None:
    assert len(page.render(full(), NOW)) < 500_000
