"""mmcls config files as users have them, for `base_config: path/to/config.py`."""

from __future__ import annotations

from pathlib import Path

#: As people have it who began with a copy of one of mmcls's own configs.
MINE = """
'''Mine.'''
_base_ = ['../_base_/models/mobilenet_v2_1x.py', '../_base_/schedules/imagenet_bs256.py', './runtime.py']
norm = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], to_rgb=True)
size = 32
model = dict(backbone=dict(widen_factor=0.25), head=dict(num_classes=3, topk=(1, )))
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', size=size), dict(type='Normalize', **norm),
    dict(type='ImageToTensor', keys=['img']), dict(type='ToTensor', keys=['gt_label']),
    dict(type='Collect', keys=['img', 'gt_label'])
]
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', size=(size + 8, -1)), dict(type='CenterCrop', crop_size=size),
    dict(type='Normalize', **norm), dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img'])
]
data = dict(
    samples_per_gpu=8,
    train=dict(type='CustomDataset', data_prefix='data/' + 'train', pipeline=train_pipeline),
    test=dict(type='CustomDataset', data_prefix='data/test', pipeline=test_pipeline))
optimizer = dict(_delete_=True, type='AdamW', lr=1e-3 / 2, weight_decay=0.05)
lr_config = dict(_delete_=True, policy='CosineAnnealing', min_lr=0, warmup='linear', warmup_iters=3, warmup_ratio=0.1)
runner = dict(max_epochs=2)
"""


def own_file(folder: Path, text: str = MINE, name: str = "mine.py") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    (folder / "runtime.py").write_text("log_level = 'WARNING'\n", encoding="utf-8")
    return str(folder / name)
