"""What the tests of the ledger's judgement share."""

from sizeup.measure.accuracy import Comparison


def comparison(known: float, estimated: float, **fields) -> Comparison:
    values = {
        "row": "r",
        "model": "m",
        "family": "llama",
        "engine": "llama.cpp",
        "machine_class": "cpu",
        "evidence": "simulate",
        "component": "compute",
    }
    return Comparison(**values | fields, known=known, estimated=estimated)
