"""Verdicts against limits by hand."""

import pytest

from engine.batching.memory_model import MemoryModel
from engine.diagnosis.device_table import GIB, KNOWN_DEVICES, KnownDevice
from engine.diagnosis.device_verdicts import Demand, Remedy, verdict
from engine.diagnosis.memory_lines import device_lines

OLD = KnownDevice(name="old", gib=16, has_bfloat16=False)
TPU = KnownDevice(name="tpu", gib=16, is_tpu=True)


def needs(constant, each, *, micro_batch=8):
    """A demand in GiB; accumulation takes half a GiB more."""
    return Demand(
        whole_bytes=int((constant + each * micro_batch) * GIB),
        accumulated=MemoryModel(
            constant_bytes=int((constant + 0.5) * GIB), bytes_per_example=int(each * GIB)
        ),
    )


def no_trace():
    raise AssertionError("a remedy was traced although nothing needs it")


def test_the_reserve_is_left_out():
    assert OLD.usable_bytes == pytest.approx((16 - 1 - 1.28) * GIB)
    assert TPU.usable_bytes == pytest.approx(16 * 0.96 * GIB)
    for size, text in ((13.7, "fits"), (13.8, "fits with accumulation (micro-batch 7)")):
        found = verdict(OLD, planned=needs(size - 8, 1.0), micro_batch=8, remedies=[])
        assert found.text == text


def test_the_first_remedy_that_fits_is_named_and_later_ones_are_not_traced():
    half, recompute = needs(2, 1), needs(1, 0.1)
    chosen = [
        Remedy(name="{half}", demand=lambda: half),
        Remedy(name="recompute", demand=lambda: recompute),
        Remedy(name="frozen layers", demand=no_trace),
    ]

    def text(device, planned):
        return verdict(device, planned=planned, micro_batch=8, remedies=chosen).text

    assert text(OLD, needs(4, 1)) == "fits"
    assert text(OLD, needs(4, 2)) == "fits with accumulation (micro-batch 4)"  # 4.5 + 2 n <= 13.72
    assert text(OLD, needs(10, 20)) == "fits with float16"
    assert text(TPU, needs(10, 20)) == "fits with bfloat16"
    chosen[0] = Remedy(name="{half}", demand=lambda: needs(2, 3))
    assert text(OLD, needs(10, 20)) == "fits with float16 and accumulation (micro-batch 3)"
    chosen[0] = Remedy(name="{half}", demand=lambda: needs(20, 20))
    assert text(OLD, needs(10, 20)) == "fits with recompute"


def test_what_does_not_fit_says_what_the_least_is():
    remedy = Remedy(name="recompute", demand=lambda: needs(30, 1))
    found = verdict(OLD, planned=needs(40, 1), micro_batch=8, remedies=[remedy])
    assert (found.text, found.need_bytes) == ("does not fit", int(31.5 * GIB))
    one = verdict(OLD, planned=needs(20, 1, micro_batch=1), micro_batch=1, remedies=[])
    assert one.text == "does not fit"


def test_every_device_has_a_line():
    lines = device_lines(needs(22, 1), [], micro_batch=8)
    names = {device.name for device in KNOWN_DEVICES}
    assert len(names) == len(KNOWN_DEVICES) == len(lines) - 3
    assert {"T4", "V100 16", "V100 32", "MI300X", "TPU v3 core"} <= names
    verdicts = {line[2:15].strip(): line for line in lines[3:]}
    assert verdicts["V100 16"].split() == "V100 16 16 13.72 23.50 does not fit".split()
    assert (
        verdicts["V100 32"].split() == "V100 32 32 28.44 27.50 fits with accumulation (micro-batch 5)".split()
    )
    assert verdicts["A100 40"].endswith(" fits")
    assert max(map(len, lines)) <= 100
    old = {device.name for device in KNOWN_DEVICES if not device.has_bfloat16}
    assert old == {"T4", "V100 16", "V100 32"}
