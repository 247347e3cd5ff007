"""Imports without the garbage collector: it comes back, whatever happens in between."""

import gc

import pytest

from mats_core.system import uncollected


def test_nothing_is_collected_while_it_is_open_and_two_may_be_open_at_once():
    assert gc.isenabled()
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_exception_brings_the_collector_back():
    with pytest.raises(KeyError), uncollected():
        raise KeyError
    assert gc.isenabled()


def test_a_collector_that_was_off_before_stays_off():
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
