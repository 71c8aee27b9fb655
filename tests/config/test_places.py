"""Where llmctl looks for its files, and which of them the user chose."""

from __future__ import annotations

from pathlib import Path

from llmctl.config.places import places


def test_home_set_alone_holds_the_configuration_too():
    found = places({"LLMCTL_HOME": "/h"})
    assert (found.home, found.config_files, found.chosen) == (Path("/h"), (Path("/h/config.toml"),), False)


def test_config_variable_wins_over_home_and_is_a_choice():
    found = places({"LLMCTL_HOME": "/h", "LLMCTL_CONFIG": "/c/x.toml"})
    assert (found.config_files, found.chosen) == ((Path("/c/x.toml"),), True)


def test_config_flags_win_over_the_variable_and_keep_their_order():
    found = places({"LLMCTL_HOME": "/h", "LLMCTL_CONFIG": "/c/x.toml"}, ["a.toml", "b.toml"])
    assert (found.config_files, found.chosen) == ((Path("a.toml"), Path("b.toml")), True)


def test_a_tilde_in_a_flag_or_variable_is_the_users_home():
    assert places({"LLMCTL_HOME": "~/h"}).home == Path.home() / "h"
    assert places({"LLMCTL_HOME": "/h"}, ["~/c.toml"]).config_files == (Path.home() / "c.toml",)


def test_an_empty_variable_is_an_unset_one():
    assert places({"LLMCTL_HOME": "/h", "LLMCTL_CONFIG": ""}).config_files == (Path("/h/config.toml"),)


def test_without_variables_the_platforms_own_directories_are_used():
    found = places({})
    assert found.home.name == "llmctl"
    assert found.config_files[0].name == "config.toml"
    assert found.config_files[0].parent.name == "llmctl"
    assert not found.chosen


def test_everything_that_is_written_is_under_home():
    found = places({"LLMCTL_HOME": "/h", "LLMCTL_CONFIG": "/c/x.toml"})
    written = (found.ledger, found.state, found.spool, found.catalog, found.weights)
    assert {each.parent for each in written} == {Path("/h")}
