import torch

torch.set_num_threads(1)  # small products are faster on one thread
