"""A machine to train on: whether it fits there, and why not."""

import pytest
from training_cases import LLAMA

import sizeup
from sizeup.errors import BadInput


def test_a_step_that_fits_a_machine():
    report = sizeup.train(LLAMA, machine="RTX 4090")
    assert report.fits
    assert report.exit_code == 0
    assert report.unfit == ""
    assert report.device_bytes < 24 * 2**30
    assert report.advice.largest_batch >= 1


def test_a_process_larger_than_the_gpu_does_not_fit():
    report = sizeup.train(LLAMA, batch=64, sequence=4096, machine="2x RTX 4090")
    assert report.exit_code == 3
    assert "a process is likely to take" in report.unfit


def test_more_devices_than_the_machine_has_do_not_fit():
    report = sizeup.train(LLAMA, machine="4x H100", sharding="fsdp", data_parallel=8)
    assert report.exit_code == 3
    assert "takes 8 devices, and 4x H100 has 4" in report.unfit


def test_the_host_must_hold_what_is_moved_there():
    small = sizeup.train(LLAMA, machine="RTX 4090, 64 GB RAM", offload_optimizer=True)
    assert small.fits
    none = sizeup.train(LLAMA, machine="RTX 4090, 1 GB RAM", precision="fp32", offload_optimizer=True)
    assert none.exit_code == 3
    assert "lie on the host" in none.unfit


def test_a_machine_without_a_gpu_is_refused():
    with pytest.raises(BadInput, match="has no GPU"):
        sizeup.train(LLAMA, machine="Ryzen 9 9950X, 64 GB RAM")
