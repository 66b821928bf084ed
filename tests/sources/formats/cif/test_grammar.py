"""The grammar of CIF: what is a value, a name, a text, and what breaks it."""

from __future__ import annotations

import gemmi
import pytest

from assay.sources.formats.cif.grammar import Damaged, blocks
from assay.sources.quarantine import Reason
from tests.sources.formats.cif.texts import ROCK_SALT, block, cell, hm, one, operations, read, refusal, sites

ROCK = block(cell(5.64), hm("F m -3 m"), sites(*ROCK_SALT))
FULL = {"Na": 4.0, "Cl": 4.0}


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + ROCK,
        ROCK.replace("\n", "\r\n"),
        ROCK.replace("\n", "\r"),
        ROCK.replace("loop_", "LOOP_").replace("data_", "DATA_"),
        ROCK.replace("_atom_site_", "_Atom_Site_").replace("_cell_length", "_CELL_LENGTH"),
        ROCK.replace("fract_x", "fract_X"),
        ROCK.replace("_atom_site_", "_atom_site.").replace("_cell_", "_cell."),
        ROCK.replace("'F m -3 m'", "F m -3 m"),
        ROCK.replace("'F m -3 m'", "\n;F m -3 m\n;"),
        ROCK.replace("'F m -3 m'", '"F m -3 m"  # the usual setting'),
        "# a comment\n\n" + ROCK + "\n# the end",
        ROCK.replace("loop_", "_publ_section_comment\n;\ndata_inside of a text\nloop_\n_cell_length_a 9\n;\nloop_", 1),
        ROCK.replace("loop_", "loop_\n_empty_one\n_empty_two\nloop_", 1),
        ROCK.replace("loop_", "_note 'it's a quote's life'\nloop_", 1),
        ROCK.replace("loop_", "_note ?\nloop_\n_citation_id\n_citation_title\n1 'loop_ in quotes'\nloop_", 1),
        ROCK.replace("loop_", "save_frame\n_cell_length_a 9.0\nsave_\nloop_", 1),
        "#\\#CIF_2.0\n" + ROCK.replace("loop_", "_list [1 2 [3 'a ] b']]\n_text '''two\nlines'''\nloop_", 1),
        ROCK.replace("Na1 Na 0 0 0 1", "Na1\nNa 0\n0 0\n1"),
        ROCK.replace("5.64\n", "5.640(2)\n"),
    ],
)
def test_one_crystal_in_every_spelling_of_the_grammar(text: str) -> None:
    found = one(text)
    assert (found.amounts, found.sites, found.warnings) == (FULL, 8, "")
    assert found.shortest == pytest.approx(2.82)


def test_values_agree_with_gemmi() -> None:
    text = block(
        "_a 'it's'",
        '_b "x y"',
        "_c\n;first\n second; third\n;",
        "loop_\n_d\n_e\n1 'two' # comment\n3 .\n? four#five",
        "_f ''",
    )
    ours, theirs = next(blocks(text)), gemmi.cif.read_string(text)[0]
    for tag in ("_a", "_b", "_c", "_f"):
        assert ours.items[tag].values == [gemmi.cif.as_string(theirs.find_value(tag))]
    for tag in ("_d", "_e"):
        assert ours.items[tag].values == [value.strip("'") for value in theirs.find_values(tag)]


def test_each_item_knows_its_line() -> None:
    text = block(cell(4), "loop_\n_x_one\n_x_two\n1 2\n\n3 4", name="lines")
    item = next(blocks(text)).items["_x_two"]
    assert [item.line_of(row) for row in (0, 1)] == [11, 13]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (ROCK.replace("Cl1 Cl 0.5 0.5 0.5 1", "Cl1 Cl 0.5 0.5 0.5"), "11 values for 6 columns"),
        (ROCK.replace("_cell_length_b 5.64\n", "_cell_length_b\n"), "line 3: _cell_length_b has no value"),
        (ROCK + "_cell_length_a 5.7\n", "lines 2 and 18: _cell_length_a has two different values"),
        (ROCK + "_note\n;never closed\n", "line 19: a text field opens with a semicolon and never ends"),
    ],
)
def test_damage_is_told_with_its_line(text: str, told: str) -> None:
    reason, message = refusal(text)
    assert reason is Reason.UNREADABLE
    assert told in message


def test_an_item_said_twice_alike_is_no_damage() -> None:
    assert one(ROCK + "_cell_length_a 5.64\n").amounts == FULL


def test_damage_of_one_block_leaves_the_others() -> None:
    broken = ROCK.replace("Cl1 Cl 0.5 0.5 0.5 1", "Cl1").replace("data_test", "data_broken")
    found, refused = read(broken + ROCK)
    assert [crystal.amounts for crystal in found] == [FULL]
    assert len(refused) == 1


def test_damage_of_an_item_that_nobody_needs_is_no_matter() -> None:
    assert one(ROCK + "loop_\n_citation_id\n_citation_title\n1 2 3\n").amounts == FULL
    assert "stands beside no data name" in one(ROCK.replace("loop_", "_title a\nb\nloop_", 1)).warnings


def test_operations_without_quotes() -> None:
    listed = operations("x,y,z", "-x,-y,-z").replace("'x,y,z'", "x, y, z").replace("'-x,-y,-z'", "-x , -y , -z")
    text = block(cell(5, 6, 7), listed, sites("Na1 Na .1 .2 .3 1", "Cl1 Cl .6 .7 .8 1"))
    assert one(text).amounts == {"Na": 2.0, "Cl": 2.0}


def test_a_value_that_breaks_the_grammar_is_raised_where_it_is_needed() -> None:
    (found,) = blocks("data_a\n_x 1\n_y\n_z 2\n")
    assert found.item("_x") is not None
    with pytest.raises(Damaged, match="line 3: _y has no value"):
        found.item("_y")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("F m -3 m", "F m -3 m" + " " * 500_000), Reason.MALFORMED),
        (("0.5 0.5 0.5", "0.5 0.5 0." + "5" * 100_000), Reason.UNREADABLE),
        (("0.5 0.5 0.5", "0.5 0.5 1/" + "5" * 100_000), Reason.UNREADABLE),
        (("'F m -3 m'", "'" + "a' " * 200_000), Reason.MALFORMED),
    ],
)
def test_endless_values_cost_little_and_are_told_short(change: tuple[str, str], reason: Reason) -> None:
    found, message = refusal(ROCK.replace(*change))
    assert found is reason
    assert len(message) < 300


ROWS = "Cl1 Cl 0.5 0.5 0.5 1"


@pytest.mark.parametrize("word", ["loop_", "LOOP_", "_", "save_x", "SAVE_label"])
def test_a_list_that_a_stray_word_cuts_in_two_is_refused(word: str) -> None:
    reason, message = refusal(ROCK.replace(ROWS, ROWS.replace("Cl1", word)))
    assert reason is Reason.UNREADABLE
    assert message.startswith("line 17: ")


def test_a_list_that_a_block_header_cuts_in_two_is_told() -> None:
    assert "a list may have been cut in two" in one(ROCK.replace(ROWS, ROWS.replace("Cl1", "data_new"))).warnings


@pytest.mark.parametrize("empty", ["''", "?", ".", '""'])
def test_an_item_that_is_repeated_without_a_value_says_nothing(empty: str) -> None:
    formula = "_chemical_formula_sum 'Na Cl'\n"
    again = f"_chemical_formula_sum {empty}\n"
    for text in (formula + again, again + formula):
        assert one(ROCK.replace("loop_", text + "loop_", 1)).warnings == ""
    assert refusal(ROCK.replace("loop_", "_chemical_formula_sum K\n" + again + "loop_", 1))[0] is Reason.MALFORMED


def test_a_list_of_sites_that_says_nothing_is_empty() -> None:
    text = block(cell(5.64), hm("F m -3 m"), sites("? ? ? ? ? ?"))
    assert refusal(text) == (Reason.UNREADABLE, "line 16: the list of sites is empty")


def test_an_open_quotation_mark_and_several_values_are_told() -> None:
    assert "quotation mark is never closed" in one(ROCK.replace("loop_", "_note 'open\nloop_", 1)).warnings
    text = ROCK.replace("_cell_length_a 5.64\n", "").replace("loop_", "loop_\n_cell_length_a\n5.64 5.7\nloop_", 1)
    assert "has several values" in refusal(text)[1]
