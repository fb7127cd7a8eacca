"""What training does not need is not loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

#: Two optimizers after each other, the second of which continues from the state of the first; the plug-ins come first.
TRAINS = """
import sys
import torch
if sys.argv[1] == "True":
    import scripts.mmcls_plugins
for name, options in (("SGD", dict(momentum=0.9)), ("AdamW", {}), ("RMSprop", {})):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    states = []
    for _ in range(2):
        optimizer = getattr(torch.optim, name)([model.weight], lr=0.1, **options)
        optimizer.add_param_group({"params": [model.bias]})
        for state in states:
            optimizer.load_state_dict(state)
        for _ in range(2):
            optimizer.zero_grad(set_to_none=True)
            model(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()
        assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())
        states = [optimizer.state_dict()]
    print(name, [value.hex() for value in model.weight.flatten().tolist()])
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.long
@pytest.mark.skipif(not hasattr(torch, "_compile"), reason="needs a torch that loads its compiler by itself")
def test_optimizers_work_without_the_compiler_and_to_the_same_bits():
    seen = []
    for with_plugins in (True, False):
        command = [sys.executable, "-c", TRAINS, str(with_plugins)]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        *weights, is_loaded = result.stdout.splitlines()
        assert is_loaded == str(not with_plugins)
        seen.append(weights)
    assert len(seen[0]) == 3 and seen[0] == seen[1]
