"""Where models come from: files, folders, other programs' stores, the Hub. Raw descriptions, read without trust.

`resolve.resolve(reference, network=…)` gives a `found.Found`: a configuration, a header, or both. Nothing here knows
what a layer is; nothing is unpickled; no weight is downloaded; other programs' files are never written.
"""
