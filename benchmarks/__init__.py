"""Measurements that back the README's figures; each module runs by ``python -m benchmarks.NAME``."""
