import torch
from hypothesis import given
from hypothesis import strategies as st

from aae_core.seeding import stream_seed
from aae_core.streams import generator

names = st.lists(st.one_of(st.text(), st.integers(0, 2**31)), max_size=3)


@given(st.integers(0, 2**63 - 1), names, names)
def test_streams_of_different_names_differ(seed: int, a: list, b: list) -> None:
    assert (stream_seed(seed, *a) == stream_seed(seed, *b)) == (a == b)


def test_a_stream_is_the_same_on_every_machine() -> None:
    assert stream_seed(0, "init") == 6291500876198751163


def test_a_generator_repeats_its_draws() -> None:
    first, second = (torch.randn(3, generator=generator(1, "noise")) for _ in range(2))
    assert torch.equal(first, second)
