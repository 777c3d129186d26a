"""Stitched forward passes: features of one checkpoint through the suffixes of many."""

from featdyn_kernels.stitch.bank import Stitched, SuffixBank

__all__ = ["Stitched", "SuffixBank"]
