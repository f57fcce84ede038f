"""Seconds of kernels by a card's rates, by hand, and how this machine's measurements are carried over. Nothing is
timed."""

import pytest
import torch

from hf_align.errors import UserError
from hf_align.planning.cards import CARDS, LAUNCH, PRODUCTS, STREAM, Card, card_named, stand_in
from hf_align.planning.device import Device
from hf_align.planning.probe import LARGEST_PRODUCT, Probe, smaller
from hf_align.planning.work import Attention, Pass, Product, Work

CARD = Card("test", memory=10, half=100, single=10, bandwidth=1000, source="none")
WIDE = Product(1, 4096, 4096, 4096, torch.bfloat16)


def test_a_cards_kernels_are_bound_by_operations_by_bytes_or_by_their_start() -> None:
    assert CARD.seconds(Work({WIDE: 10})) == pytest.approx(10 * 2 * 4096**3 / (PRODUCTS * 100e12))
    single = WIDE._replace(dtype=torch.float32)
    assert CARD.seconds(Work({single: 1})) == pytest.approx(10 * CARD.seconds(Work({WIDE: 1})))
    token = WIDE._replace(m=1)  # reads the weight for one row
    wanted = 1000 * 2 * (4096 + 4096 * 4096 + 4096) / (STREAM * 1000e9)
    assert CARD.seconds(Work({token: 1000})) == pytest.approx(max(wanted, 1000 * LAUNCH))
    assert CARD.seconds(Work({Pass(8e9): 1})) == pytest.approx(8e9 / (STREAM * 1000e9))
    assert CARD.seconds(Work({Pass(8.0): 500})) == pytest.approx(500 * LAUNCH)


def test_cards_by_name_and_by_size() -> None:
    assert card_named("NVIDIA L4") is CARDS["l4"] and card_named("A100") is CARDS["a100-80gb"]
    assert card_named("24GB") is None
    named = Device.of("t4")
    assert named.dtype == torch.float16 and named.memory < 15 * 2**30 and named.speed is CARDS["t4"]
    assert stand_in(1e12) is CARDS["h200"] and stand_in(80 * 2**30) is CARDS["a100-80gb"]
    assert Device.of("24GB").speed in CARDS.values()
    for card in CARDS.values():  # numbers that were typed in
        assert card.single < card.half and 300 <= card.bandwidth < 5000 and 14 < card.memory < 140
    with pytest.raises(UserError, match="'h1000' is not an amount of memory; write one like 24GB, or a GPU: t4"):
        Device.of("h1000")


def test_measurements_are_carried_over_to_other_sizes() -> None:
    small = Product(1, 64, 64, 64, torch.float32)
    probe = Probe(device="cpu", left=0.0, measured={small: 1e-3, Pass(1024.0): 1e-4}, call=1e-5)
    assert probe.seconds(Work({small: 3})) == pytest.approx(3 * (1e-3 + 1e-5))
    assert probe.seconds(Work({small._replace(m=128): 1})) == pytest.approx(2e-3 + 1e-5), "as much longer as larger"
    assert probe.seconds(Work({Pass(4096.0): 1})) == pytest.approx(4e-4 + 1e-5)
    probe.device = "cuda"
    assert probe.seconds(Work({small: 3})) == pytest.approx(3e-3), "the next kernel starts while one runs"


def test_no_kernel_that_is_run_is_large() -> None:
    assert smaller(WIDE).operations <= LARGEST_PRODUCT < 2 * smaller(WIDE).operations
    attention = Attention(64, 32, 4096, 4096, 128, torch.bfloat16, True)
    assert smaller(attention).operations <= LARGEST_PRODUCT and smaller(attention)._asdict()["size"] == 128
    assert smaller(Pass(1000.0)) == smaller(Pass(1040.0)), "similar ones are run once"
    assert smaller(Product(1, 8, 8, 8, torch.float32)) == Product(1, 8, 8, 8, torch.float32)


@pytest.mark.parametrize(
    "kernel",
    [
        Product(3, 4, 5, 6, torch.float32, (True, True)),
        Product(1, 32, 32, 32, torch.int8, (False, True)),
        Attention(1, 2, 8, 8, 4, torch.float32, True),
        Pass(4096.0),
    ],
)
def test_every_kind_of_kernel_runs_here(kernel: Product | Attention | Pass) -> None:
    probe = Probe(device="cpu")
    assert probe.seconds(Work({kernel: 1})) > 0
    assert len(probe.measured) == 1 and probe.left < 5
    assert "measured now" in probe.described()
