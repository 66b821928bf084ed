"""Shared by the benchmarks: the stopwatch, and real crystals with the objects of their peers."""
