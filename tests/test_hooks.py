"""Hooks show, replace and stop; and nothing is left of them, whatever happens."""

from threading import Thread

import pytest
import torch
from torch import nn

from lifelong.hooks import tracing


@pytest.fixture
def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))


ONES = torch.ones(1, 4)


def bare(net: nn.Module) -> bool:
    return not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_what_goes_in_and_comes_out_is_shown_and_may_be_replaced(net: nn.Sequential) -> None:
    seen: list[torch.Tensor] = []
    with tracing(
        before={net[1]: lambda args, kwargs: seen.append(args[0])},
        after={net[0]: lambda entered, out: torch.zeros_like(out)},
    ):
        out = net(ONES)
    assert torch.equal(seen[0], torch.zeros(1, 4))
    assert torch.equal(out, net[1](torch.zeros(1, 4)))
    assert bare(net)


def test_a_tuple_is_replaced_in_its_first_place() -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, str]:
            return x, "rest"

    pair = Pair()
    with tracing(after={pair: lambda _, out: out + 1}):
        first, second = pair(ONES)
    assert torch.equal(first, ONES + 1)
    assert second == "rest"


def test_the_rest_of_the_block_is_skipped_once_it_may_stop(net: nn.Sequential) -> None:
    reached = []
    with tracing(before={net[1]: lambda *_: reached.append(1)}, stop=net[0]):
        net(ONES)
        reached.append(2)
    assert reached == []
    assert bare(net)


def test_nothing_is_left_after_an_error(net: nn.Sequential) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"), tracing(after={net[0]: fail}):
        net(ONES)
    assert bare(net)


def test_other_threads_are_left_alone(net: nn.Sequential) -> None:
    plain = net(ONES)
    elsewhere: list[torch.Tensor] = []
    with tracing(after={net[0]: lambda _, out: out + 1}, before={net[1]: lambda *_: None}):
        thread = Thread(target=lambda: elsewhere.append(net(ONES)))
        thread.start()
        thread.join()
        here = net(ONES)
    assert torch.equal(elsewhere[0], plain)
    assert not torch.equal(here, plain)
