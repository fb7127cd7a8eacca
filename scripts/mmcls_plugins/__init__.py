"""What mimflow adds to mmcls, loaded by a config's ``custom_imports``; no package of OpenMMLab is ever patched.

Our loader of weights is registered with mmcv in the place of its own ones.
"""

import os
import warnings

# cuBLAS reads this once, when CUDA starts: without it torch refuses to promise deterministic matrix products.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

with warnings.catch_warnings():  # mmcv 1 announces on every import that mmcv 2 exists
    warnings.simplefilter("ignore")
    from scripts.mmcls_plugins.checkpoints import replace_loaders
    from scripts.mmcls_plugins.dataset import EpochSampler, SeededCustomDataset
    from scripts.mmcls_plugins.images import LoadImage, LoadPackedImage, MakeSquare
    from scripts.mmcls_plugins.losses import WeightedLabelSmoothLoss
    from scripts.mmcls_plugins.quick_start import leave_compiler_out
    from scripts.mmcls_plugins.runner import ReproducibleRunner
    from scripts.mmcls_plugins.timm_backbone import TimmFeatures

replace_loaders()
leave_compiler_out()

__all__ = [
    "EpochSampler", "LoadImage", "LoadPackedImage", "MakeSquare", "ReproducibleRunner", "SeededCustomDataset",
    "TimmFeatures", "WeightedLabelSmoothLoss",
]  # fmt: skip
