"""Benchmarks: Cryostore against its peers on one machine, in one run (`python -m bench`). See bench/README.md."""
