"""The ops in Triton, for GPUs: a file for each, under the name of the file that has its contract and reference."""

import os

# Products and sums are fused, as all versions of Triton have done; from 3.10 on it does so only if told to.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
