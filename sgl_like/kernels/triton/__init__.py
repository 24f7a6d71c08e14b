"""The ops in Triton, for GPUs: a file for each, under the name of the file that has its contract and reference."""
