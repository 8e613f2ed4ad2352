"""One thread for everything: the last bits of what a CPU computes depend on their number."""

import os

import torch

import taskrobust  # noqa: F401  before torchvision, timm and transformers, where torchvision is built for CUDA alone

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
torch.set_num_threads(1)  # of the one that they run in
