"""Writes tests/goldens/torch_optimizers.npz: 50 steps of PyTorch's optimizers.

python tests/helpers/torch_optimizers.py, in an environment with PyTorch; `tests/engine/inner_loop/
test_optimizers.py` compares with it.
"""

import os

import numpy as np

STEPS = 50
SHAPES = ((5, 3), (3,))
OUTPUT = os.path.join(os.path.dirname(__file__), os.pardir, "goldens", "torch_optimizers.npz")


def gradients_and_start():
    """(gradients [STEPS] of a list for each variable, first values), float64."""
    rng = np.random.default_rng(11)
    start = [rng.normal(size=shape) for shape in SHAPES]
    return [[rng.normal(size=shape) for shape in SHAPES] for _ in range(STEPS)], start


def main():
    import torch

    cases = {
        "sgd": (torch.optim.SGD, {"lr": 0.1}),
        "momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}),
        "nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        "rmsprop": (torch.optim.RMSprop, {"lr": 0.01, "alpha": 0.9, "weight_decay": 0.05}),
        "rmsprop_momentum": (torch.optim.RMSprop, {"lr": 0.01, "alpha": 0.9, "momentum": 0.8}),
        "adam": (torch.optim.Adam, {"lr": 0.02, "betas": (0.5, 0.99)}),
        "adamw": (torch.optim.AdamW, {"lr": 0.02, "betas": (0.5, 0.99), "weight_decay": 0.3}),
        "amsgrad": (torch.optim.Adam, {"lr": 0.02, "betas": (0.5, 0.9), "amsgrad": True}),
    }
    gradients, start = gradients_and_start()
    results = {}
    for name, (make, settings) in cases.items():
        variables = [torch.tensor(value, requires_grad=True) for value in start]
        optimizer = make(variables, **settings)
        for step in gradients:
            for variable, gradient in zip(variables, step, strict=True):
                variable.grad = torch.tensor(gradient)
            optimizer.step()
        for index, variable in enumerate(variables):
            results[f"{name}/{index}"] = variable.detach().numpy()
    np.savez(OUTPUT, **results)


if __name__ == "__main__":
    main()
