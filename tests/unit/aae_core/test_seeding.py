import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aae_core import streams
from aae_core.seeding import stream_bytes, stream_seed
from aae_core.streams import generator

names = st.lists(st.one_of(st.text(), st.integers(0, 2**31)), max_size=3)


@given(st.integers(0, 2**63 - 1), names, names)
def test_stream_seeds_differ_exactly_when_names_differ(seed: int, a: list, b: list) -> None:
    assert (stream_seed(seed, *a) == stream_seed(seed, *b)) == (a == b)


def test_stream_draws_match_recorded_values_on_every_machine() -> None:
    assert stream_seed(0, "init") == 6291500876198751163
    assert first_words(generator(0, "init")) == [148993215, 932199657, 485933173]


def test_generator_repeats_its_draws() -> None:
    first, second = (torch.randn(3, generator=generator(1, "noise")) for _ in range(2))
    assert torch.equal(first, second)


def test_generator_words_of_the_name_drive_the_mersenne_twister() -> None:
    """Test against NumPy's twister with the same words: equal outputs over two refills."""
    words = np.frombuffer(stream_bytes(4 * 624, 3, "noise"), "<u4")
    reference = np.random.RandomState()
    reference.set_state(("MT19937", words, 624))
    want = reference.randint(0, 2**32, 1500, np.uint32) & 0x7FFFFFFF
    assert first_words(generator(3, "noise"), 1500) == want.tolist()


@pytest.mark.parametrize("path", [(), ("noise",), ("parzen", 7)])
def test_generator_seeds_equal_in_their_low_32_bits_draw_differently(path: tuple) -> None:
    a, b = (torch.rand(1000, generator=generator(seed, *path)) for seed in (5, 5 + 2**32))
    assert not (a == b).any()


def test_generator_names_with_equal_seed_draw_differently(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Test names with one `stream_seed`: the names alone separate the streams."""
    monkeypatch.setattr(streams, "stream_seed", lambda *_: 7)
    firsts = {tuple(first_words(generator(0, "parzen", index))) for index in range(4000)}
    assert len(firsts) == 4000


def test_generator_names_colliding_at_32_bits_draw_differently() -> None:
    seen: dict[int, int] = {}
    pairs = [
        (seen[low], index)
        for index in range(400_000)
        if seen.setdefault(low := stream_seed(0, "parzen", index) % 2**32, index) != index
    ]
    assert len(pairs) > 5  # 400,000² / 2³³ = 18.6 are expected
    for a, b in pairs:
        assert first_words(generator(0, "parzen", a)) != first_words(generator(0, "parzen", b))


def test_generator_draws_are_uniform_and_neighbours_uncorrelated() -> None:
    """Test bounds of five standard errors."""
    n, m = 2000, 64
    u = torch.stack([torch.rand(m, generator=generator(0, "block", i)) for i in range(n)]).double()
    assert abs(float(u.mean()) - 1 / 2) < 5 * (1 / 12 / (n * m)) ** 0.5
    assert abs(float(u.var()) - 1 / 12) < 5 * (1 / 180 / (n * m)) ** 0.5
    first = (u - 1 / 2) * 12**0.5
    for lag in (1, 2, 32):
        assert abs(float((first[:-lag] * first[lag:]).mean())) < 5 / ((n - lag) * m) ** 0.5
    within = (first[:, :-1] * first[:, 1:]).mean(0)  # over the streams, at each position
    assert float(within.abs().max()) < 5 / n**0.5


def test_generator_state_restores_in_the_middle_of_a_stream() -> None:
    stream = generator(2, "noise")
    torch.randn(7, generator=stream)
    again = generator(9, "other")
    again.set_state(stream.get_state())
    assert torch.equal(torch.randn(900, generator=again), torch.randn(900, generator=stream))


def first_words(stream: torch.Generator, n: int = 3) -> list[int]:
    """Return the low 31 bits of the generator's next outputs."""
    return torch.empty(n, dtype=torch.int32).random_(generator=stream).tolist()
