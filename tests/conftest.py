"""One thread for everything: the last bits of what a CPU computes depend on their number."""

import os
import signal

import torch

import taskrobust  # noqa: F401  before torchvision, timm and transformers, where torchvision is built for CUDA alone

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell ignores in what it runs in the background
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores
torch.set_num_threads(1)  # of the one that they run in

pytest_plugins = ["tests.helpers.images", "tests.helpers.processes", "tests.helpers.runs", "tests.helpers.text"]
