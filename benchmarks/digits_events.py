"""The digits as events, from nothing: `python -m benchmarks.digits_events`.

Each seed starts in an empty folder, so that its wall time covers the simulation of all recordings,
the cache of their frames, training, and testing. The rest is as in `benchmarks.digits`.
"""

from benchmarks.digits import main

if __name__ == "__main__":
    main("digits_events", ["experiment=digits_events"])
