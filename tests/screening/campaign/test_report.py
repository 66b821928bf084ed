"""The report: pure, offline, and nothing remote comes through unescaped."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from assay.models.ensemble.stored import HeldRows
from assay.screening.campaign.reporting import links, plots, report
from assay.screening.campaign.reporting.evidence import DETAILED, Evidence, Landscape
from assay.screening.display import cells
from assay.screening.folder.balance import Balance
from assay.screening.folder.delivery import Delivery
from assay.screening.folder.summary import Merged, Model, Property, Summary, Target
from assay.screening.settings.choice import Rank
from assay.sources.crystals import Crystals, concat
from assay.sources.quarantine import Quarantined, Reason, Stage

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "'; alert(1); '",
    "{{ 7 * 13 * 19 }}",
    "{% raw %}",
    "</title><b>",
    "javascript:alert(1)",
    "&lt;b&gt;",
]


def content(text: str) -> tuple[Summary, list[dict[str, Any]], list[Quarantined], list[str], Any]:
    row = {
        "rank": 1,
        "id": text,
        "formula": f"Fe2{text}",
        "elements": "Fe",
        "nsites": 2,
        "ordered": False,
        "source": text,
        "tc_mean": 3.0,
        "tc_std": 0.5,
        "tc_lo": 2.0,
        "tc_hi": 4.0,
        "tc_member_0": 2.5,
        "tc_member_1": 3.5,
        "ood": True,
        "score": 3.0,
    }
    summary = Summary(
        campaign="c",
        complete=False,
        balance=Balance(1, 1, 1, 1, 1, 1, 1, 1, 1),
        identity=Merged(rows=5, clusters=4, related=1),
        quarantine={"malformed": 1},
        sources=[Delivery(text, "files", text, text, text, 1, 1, 1, None, complete=False, error=text)],
        models=[Model(text, ["cgcnn"], ["0" * 64], [Property("tc", "K")], 3, 0, {text: {"mae": text}})],
        rank=Rank(),
        target=Target(text, "tc", "K", 0.9),
        max_bad=0.05,
        fingerprint={"assay": "1", "filters": text},
        sha256={"candidates.parquet": "0" * 64},
    )
    bad = [Quarantined(text, text, Stage.PULL, Reason.MALFORMED, text)]
    table = pa.table({name: [value] for name, value in row.items()})
    return summary, [row], bad, table.column_names, lambda: [table["tc_mean"].to_numpy()]


def evidence(text: str) -> Evidence:
    """What stands behind that row: a structure, calibration rows, a map."""
    shared = Crystals([text], [np.diag([3.0, 3.0, 4.0])], [0, 2], [[0, 0, 0], [0.5, 0.5, 0.5]], [0, 1, 3],
                      [26, 26, 27], [1.0, 0.5, 0.25])  # fmt: skip
    known = np.linspace(0, 9, 40)
    held = HeldRows(known, known + 0.5, np.full(40, 0.5), np.arange(40))
    places = Landscape(np.array([[0.0, 0.0], [1.0, 2.0]]), np.array([[0.5, 0.5]]), 0.9)
    return Evidence(shared, held, reported="tc", pairs=lambda: iter([(known, known)]), landscape=places)


class Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(page)
    return parser.tags


@pytest.mark.parametrize("text", HOSTILE)
def test_remote_text_adds_no_tag_and_no_attribute(text: str) -> None:
    hostile, harmless = report.render(*content(text)), report.render(*content("harmless"))
    assert [(tag, sorted(attrs)) for tag, attrs in tags(hostile)] == [(t, sorted(a)) for t, a in tags(harmless)]
    assert "1729" not in report.render(*content("{{ 7 * 13 * 19 }}"))


def test_nothing_is_loaded_from_anywhere_and_no_script_but_our_own_runs() -> None:
    page = report.render(*content("x"), evidence=evidence("mp/mp-763"))
    assert "default-src 'none'" in page
    assert not {"link", "img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in tags(page)}
    assert not {"src", "onload", "style", "action"} & {name for _, attrs in tags(page) for name in attrs}
    assert not re.search(
        r"https?://|url\(|@import", page.replace("https://next-gen.materialsproject.org/materials/", "")
    )
    (script,) = re.findall(r"<script>(.*)</script>", page, re.DOTALL)
    assert [attrs for tag, attrs in tags(page) if tag == "script"] == [{}]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in page


def test_only_plain_entries_of_known_databases_become_links() -> None:
    ids = {
        "mp/mp-763": "https://next-gen.materialsproject.org/materials/mp-763",
        "oqmd/4061139": "https://oqmd.org/materials/entry/4061139",
        "odbx/12": "https://optimade.odbx.science/v1/structures/12",
        "mp/../../x": "",
        "mp/javascript:alert(1)": "",
        "mp/": "",
        "mine/mp-763": "",
        '"><script>': "",
    }
    assert {id: links.address(id) for id in ids} == ids
    row = content("mp/mp-763")[1][0]
    page = report.render(*content("mp/mp-763"), evidence=evidence("mp/mp-763"))
    hrefs = [attrs["href"] for tag, attrs in tags(page) if tag == "a"]
    assert hrefs == [f"#candidate-{row['rank']}", ids["mp/mp-763"]]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_stays_one_in_the_card_of_a_candidate(text: str) -> None:
    pages = []
    for said in (text, "harmless"):
        summary, (row,), bad, columns, means = content(said)
        row |= {"reported": said, "ids": [said, "x"], "band_gap_functionals": said}
        pages.append(report.render(summary, [row], bad, columns, means, evidence=evidence(said)))
    hostile, harmless = ([(tag, sorted(attrs)) for tag, attrs in tags(page)] for page in pages)
    assert hostile == harmless


def test_the_report_is_a_pure_function_and_says_what_matters() -> None:
    page = report.render(*content("x"))
    assert page == report.render(*content("x"))
    for part in (
        "new element",
        "disordered",
        "3.00 ± 0.50",
        "[2.00, 4.00]",
        "malformed",
        "Limits",
        "sha256",
        "incomplete",
    ):
        assert part in page


def test_the_deviation_is_called_what_it_is() -> None:
    summary, top, bad, columns, means = content("x")
    page = report.render(summary, top, bad, columns, means)
    assert "mean ± standard deviation of 2 members" in page
    assert "errors that all members share do not show in it" in page
    assert "unlike training" not in page
    far = [{**row, "ood_distance": 1.7} for row in top]
    summary = replace(summary, target=replace(summary.target, calibrated=True))
    page = report.render(summary, far, bad, [*columns, "ood_distance"], means)
    assert "mean ± calibrated standard deviation of 2 members" in page
    assert "errors that all members share" not in page
    assert 'title="ood_distance 1.7">unlike training</span>' in page
    assert "in training" not in page
    page = report.render(summary, [{**row, "in_training": True} for row in top], bad, [*columns, "in_training"], means)
    assert '<span class="tag">in training</span>' in page
    assert "the row is no discovery" in page


@pytest.mark.parametrize("text", HOSTILE)
def test_warnings_of_a_row_are_shown_and_escaped(text: str) -> None:
    summary, top, bad, columns, means = content("x")
    pages = []
    for said in (text, "harmless", ""):
        rows = [{**row, "warnings": said} for row in top]
        pages.append(report.render(summary, rows, bad, [*columns, "warnings"], means))
    hostile, harmless, none = pages
    assert tags(hostile) == tags(harmless)
    assert '<span class="tag lost">warnings</span> harmless</td>' in harmless
    assert none == report.render(*content("x"))


def test_the_histogram_is_that_of_all_predictions_in_whatever_portions() -> None:
    summary, top, bad, columns, _ = content("x")
    means = np.append(np.random.default_rng(0).normal(20, 9, 500), [np.nan, 20.0])
    portions = [means[:1], means[1:1], means[1:200], means[200:501], means[501:]]
    page = report.render(summary, top, bad, columns, lambda: portions)
    assert page == report.render(summary, top, bad, columns, lambda: [means])
    counts, edges = np.histogram(means[np.isfinite(means)], bins=plots.BINS)
    bars = plots.histogram(lambda: portions)["bars"]
    assert [bar["n"] for bar in bars] == counts.tolist()
    assert [bar["from"] for bar in bars] == edges[:-1].tolist()


def test_a_campaign_without_candidates_still_has_a_report() -> None:
    summary, _, bad, columns, _ = content("x")
    assert "no crystal was ranked" in report.render(summary, [], bad, columns, list)


def test_the_table_of_the_report_ends_at_a_cap_and_says_where_the_rest_is() -> None:
    summary, (row,), bad, columns, means = content("x" * 4096)
    balance = replace(summary.balance, ranked=150_000)
    few, many = (replace(summary, rank=Rank(top=top), balance=balance) for top in (1_000, 120_000))
    page, more = (report.render(one, [row] * one.rank.top, bad, columns, means) for one in (few, many))
    told = "The report shows the best 1,000 of the 120,000 that rank.top asks for; candidates.parquet holds all."
    assert (told in page, told in more) == (False, True)
    assert len(more) < len(page) + 300 < 8e6


@pytest.mark.parametrize("unseen", ["\r", "\x1b", "\u202e", "\u2028"])
def test_nothing_that_is_not_seen_stands_in_the_report(unseen: str) -> None:
    assert unseen not in report.render(*content(f"a{unseen}b"))


def test_digits_go_by_the_error() -> None:
    summary, (row,), bad, columns, means = content("x")
    row |= {"tc_mean": 38.2134, "tc_std": 4.567, "tc_lo": 29.871, "tc_hi": 46.558}
    assert re.search(r">38.2 ± 4.6</td><td[^>]*>\[29.9, 46.6\]<", report.render(summary, [row], bad, columns, means))


def test_two_related_crystals_among_the_best_are_said_to_be_related() -> None:
    summary, top, bad, columns, means = content("x")
    near = {"related_distance": [0.048], "related_volume_ratio": [1.01]}
    first = top[0] | near | {"related_to": ["y"]}
    second = top[0] | near | {"id": "y", "rank": 7, "related_to": ["x"]}
    page = report.render(summary, [first, second], bad, columns, means)
    assert "Related candidates" in page
    assert re.search(r">1</td><td[^>]*>7</td><td>.*</td><td[^>]*>0.048</td><td[^>]*>1.01<", page)
    without = report.render(summary, [first], bad, columns, means)  # the other one is further down
    assert "Related candidates" not in without


def test_a_hundred_large_candidates_stay_below_three_megabytes() -> None:
    summary, (row,), bad, columns, means = content("x")
    n, rng = cells.MOST_SITES, np.random.default_rng(0)
    one = Crystals(["x"], [np.eye(3) * 30], [0, n], rng.random((n, 3)), np.arange(n + 1), np.full(n, 29), np.ones(n))
    rows = [row | {"rank": 1 + k, **{f"reported_{i}": rng.random() for i in range(60)}} for k in range(DETAILED)]
    page = report.render(summary, rows, bad, columns, means, evidence=Evidence(concat([one] * DETAILED)))
    assert page.count("data-crystal=") == DETAILED
    assert "23 more columns stand in candidates.parquet" in page
    assert len(page.encode()) < 3e6
