"""sizeup: what a language model will weigh, how fast it will run and how good it will be on your hardware.

    import sizeup

    sizeup.show("Qwen/Qwen3-8B").parameters.total
    sizeup.fit("Qwen/Qwen3-8B", machine="RTX 4090, 64 GB RAM").plans[0].speed.decode_tokens_per_s

Every operation of the command line is a function here, with the same names and types; results are typed objects
whose attributes are the keys of `--json`. Functions are made from the table of operations when first used.
"""

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "accuracy",
    "advise",
    "bench",
    "chat",
    "cost",
    "demo",
    "engine_install",
    "engine_list",
    "eval",
    "fit",
    "hardware",
    "ledger",
    "machine",
    "machine_calibrate",
    "rules",
    "run",
    "scale",
    "show",
    "train",
    "tune",
    "watch",
]


def __getattr__(name: str) -> object:
    """The operation of that name as a function."""
    if name in __all__:
        from sizeup.operations.api import as_function

        function = as_function(name)
        globals()[name] = function
        return function
    raise AttributeError(f"module 'sizeup' has no attribute {name!r}")
