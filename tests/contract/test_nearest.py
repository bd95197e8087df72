"""The nearest name is the one that begins alike where several are as near."""

from __future__ import annotations

from espalier.core import UnknownNameError


def test_of_equally_near_names_the_one_that_begins_alike_is_meant() -> None:
    error = UnknownNameError("model", "cifar_resnet21", ("cifar_resnet32", "cifar_resnet20", "cifar_resnet110"))
    assert "Did you mean 'cifar_resnet20'?" in str(error)


def test_names_that_are_like_none_list_what_there_is() -> None:
    assert "Known: alpha, beta." in str(UnknownNameError("thing", "zzz", ("beta", "alpha")))
