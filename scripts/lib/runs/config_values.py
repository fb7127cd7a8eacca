"""Which values of an mmcls config are known to be harmless, whoever wrote them: by key, by name of a class, by value.

mmcls and mmcv build what a config names: among it are hooks that write any file, loaders that extend ``sys.path`` and
import, datasets that unpickle, and ``eval`` of a string. What is not listed here is refused; nothing is guessed from a
name. The lists hold what the base configs of mmcls's model zoo and mimflow itself write, and their likes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

#: Keys of a config, at any depth. None of them names a file, an address or a module.
KEYS = frozenset(
    """
    _delete act_cfg aligned alpha alphastd amsgrad angle arch attn_drop_rate augments avg_down backbone backend
    background balanced balanced_validation base_channels base_width betas bias bias_decay_mult bit_depth bits
    block_cfgs brightness by_epoch bypass_duplicate cal_acc channels_last checkpoint_config checkpoint_minutes
    class_weight cls_token color_type contrast conv_cfg cool_down_ratio cool_down_time crop_size custom_hooks
    custom_keys cycle dampening data decay_mult deep_stem deploy depth deterministic device dim dim_mul_in_attention
    direction drop_last drop_path_rate drop_rate dropout dropout_rate efficientnet_padding efficientnet_style eigval
    eigvec embed_dims eps erase_prob evaluate_first evaluation expansion feedforward_channels ffn_ratio fill_color
    fill_std find_unused_parameters first_stride fit flip_prob fold_norm foreach fp16 frozen_stages fused gamma
    gap_before_final_norm gpus grad_clip groups head hidden_dim hooks hparams hue img_size in_channels init_cfg
    interpolation interval keep_states keys label_smooth_val lam layer layer_cfgs log_config log_level loss loss_scale
    loss_weight lr lr_config lr_mult magnitude magnitude_key magnitude_level magnitude_range magnitude_std
    max_area_ratio max_epochs max_keep_ckpts max_norm max_num mean metric metric_options mid_channels min_area_ratio
    min_lr min_lr_ratio mode model model_name momentum momentum_config most neck nesterov nodes nonlinearity
    norm_after_stage norm_cfg norm_decay_mult norm_eval norm_type normalize num_classes num_fcs num_heads num_layers
    num_policies num_samples num_stages optimizer optimizer_config out_channels out_indices pad_mode pad_small_map
    pad_val padding paramwise_cfg patch_size patience persistent_workers pin_memory pipeline policies policy power
    pretrained_window_sizes priority prob qkv_bias random_negative_prob ratio reduction reparam_conv_kernels
    requires_grad runner sampler samples_per_gpu saturation scale scales se_ratio seed shape shear shuffle_labels size
    stage_cfgs std stem_channels step style t2t_cfg test test_mode thr threads thrs to_rgb token_dims topk total_level
    train train_cfg train_dataloader translate type use_abs_pos_encoding use_performer use_sigmoid use_soft val
    warm_up warmup warmup_by_epoch warmup_iters warmup_ratio weight_decay widen_factor width_per_group window_size
    with_cp workers_per_gpu
    """.split()  # noqa: SIM905
)
#: Classes that a config may name: all compute only. Not among them: TIMMBackbone, Albu, the datasets of mmcls, loggers
#: other than of text, hooks that write or evaluate, runners that load by themselves.
CLASSES = frozenset(
    """
    AlexNet AsymmetricLoss CSPDarkNet CSPResNeXt CSPResNet CSRAClsHead ClsHead Conformer ConformerHead ConvMixer
    ConvNeXt CrossEntropyLoss DeiTClsHead DenseNet DistilledVisionTransformer EfficientFormer EfficientFormerClsHead
    EfficientNet FocalLoss GeneralizedMeanPooling GlobalAveragePooling HRFuseScales HRNet HorNet ImageClassifier
    LabelSmoothLoss LeNet5 LinearClsHead MViT MlpMixer MobileNetV2 MobileNetV3 MultiLabelClsHead
    MultiLabelLinearClsHead PCPVT PoolFormer RegNet RepMLPNet RepVGG Res2Net ResNeSt ResNeXt ResNet ResNetV1c
    ResNetV1d ResNet_CIFAR SEResNeXt SEResNet SVT SeesawLoss ShuffleNetV1 ShuffleNetV2 StackedLinearClsHead
    SwinTransformer SwinTransformerV2 T2T_ViT TNT TimmFeatures VAN VGG VisionTransformer VisionTransformerClsHead
    WeightedLabelSmoothLoss BatchCutMix BatchMixup BatchResize Constant Xavier Normal TruncNormal Uniform Kaiming
    Caffe2Xavier BN BN1d BN2d BN3d GN IN IN1d IN2d IN3d LN LN2d SyncBN Conv Conv1d Conv2d Conv2dAdaptivePadding
    ConvAWS ConvWS Linear LayerNorm GroupNorm LayerScale BatchNorm2d Clamp Clip ELU GELU HSigmoid HSwish LeakyReLU
    PReLU RReLU ReLU ReLU6 SiLU Sigmoid Swish Tanh DropPath Dropout reflect replicate zero bilinear nearest
    AutoAugment AutoContrast Brightness CenterCrop Collect ColorJitter ColorTransform Contrast Cutout Equalize
    ImageToTensor Invert Lighting LoadImage LoadImageFromFile LoadPackedImage Normalize Pad Posterize RandAugment
    RandomCrop RandomErasing RandomFlip RandomGrayscale RandomResizedCrop Resize Rotate Sharpness Shear Solarize
    SolarizeAdd ToHalf ToNumpy ToTensor Translate Transpose SeededCustomDataset CustomDataset EpochSampler
    ReproducibleRunner MakeSquare
    TextLoggerHook EMAHook PreciseBNHook EmptyCacheHook ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax Lamb NAdam
    RAdam RMSprop Rprop SGD step Step fixed exp poly Poly inv CosineAnnealing CosineAnnealingCooldown CosineRestart
    FlatCosineAnnealing LinearAnnealing OneCycle Cyclic cyclic
    """.split()  # noqa: SIM905
)
#: Keys that may hold a word: a choice among what mmcls has, which it looks up in a table.
CHOICES = frozenset(
    """
    arch backend color_type device direction interpolation keys log_level loss_scale magnitude_key metric mode
    nonlinearity pad_mode padding priority reduction style warmup
    """.split()  # noqa: SIM905
)
WORD = re.compile(r"[A-Za-z0-9_-]{1,40}(\.\d[A-Za-z0-9]{0,8})?(/\d{1,4})?")  # regnetx_6.4gf, 1024/20
#: A model of timm, with or without the name of weights, none of a hub or a folder, which timm would load and run.
MODEL_NAME = re.compile(r"[A-Za-z0-9_]{1,80}(\.[A-Za-z0-9_]{1,80})?")
#: Keys whose value names a class.
NAMES = ("type", "policy", "layer")
#: Where the images and the weights lie: files that are read as data, whatever they hold.
PATHS = ("data_prefix", "ann_file", "folder", "load_from")
#: Names of parameters, with numbers for each.
PARAMETER = re.compile(r"[A-Za-z0-9_.]{1,100}")
#: Sections that only this value may have.
FIXED = {
    "custom_imports": {"imports": ["scripts.mmcls_plugins"], "allow_failed_imports": False},
    "workflow": [("train", 1)],
    "dist_params": {"backend": "nccl"},
    "resume_from": None,
    "load_from": None,
    "pretrained": None,
}
DEEPEST = 24

Entries = Iterator[tuple[str, Any]]


def unknown(values: Any, *, with_paths: bool = False) -> Entries:
    """Yield the dotted key and the value of each entry of a config, or of overrides, that is not known to be harmless.

    Parameters
    ----------
    values : a config, or overrides: their keys may be dotted.
    with_paths : the config is of a run, which names its images, its classes and the weights that it starts from.
    """
    if not isinstance(values, Mapping):
        yield "", values
        return
    yield from _unknown(values, "", "", with_paths)


def _unknown(value: Any, key: str, dotted: str, with_paths: bool) -> Entries:
    """*key* is the last one that is no index; *dotted* is the whole, for messages."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _entry(name, inner, key, f"{dotted}.{name}".lstrip("."), with_paths)
    elif isinstance(value, list | tuple):
        if dotted.count(".") > DEEPEST:
            yield dotted, value
            return
        for index, inner in enumerate(value):
            yield from _unknown(inner, key, f"{dotted}.{index}", with_paths)
    elif not _is_harmless(value, key):
        yield dotted, value


def _entry(name: Any, value: Any, above: str, dotted: str, with_paths: bool) -> Entries:
    steps = [step for step in name.split(".") if not step.isdigit()] if isinstance(name, str) else []
    last = steps[-1] if steps else above
    if dotted.count(".") > DEEPEST or not isinstance(name, str):
        yield dotted, value
    elif above == "custom_keys" and PARAMETER.fullmatch(name):
        yield from _unknown(value, name, dotted, with_paths)
    elif (
        (with_paths and last in PATHS and isinstance(value, str | None))
        or (with_paths and last == "classes" and isinstance(value, list) and all(isinstance(x, str) for x in value))
        or (last in FIXED and value == FIXED[last])
    ):
        return
    elif any(step not in KEYS for step in steps) or (not steps and not name.isdigit()):
        yield dotted, value
    else:
        yield from _unknown(value, last, dotted, with_paths)


def _is_harmless(value: Any, key: str) -> bool:
    if not isinstance(value, str):
        return value is None or isinstance(value, bool | int | float)
    if key in NAMES:
        return value in CLASSES
    if key == "model_name":
        return bool(MODEL_NAME.fullmatch(value))
    return key in CHOICES and bool(WORD.fullmatch(value))


def described(key: str, value: Any) -> str:
    """Return a key and its value from elsewhere as one short line that is safe on a terminal."""
    name = "".join(character if character.isprintable() else "?" for character in key)
    return f"{_cut(name, 200)}: {_cut(ascii(value), 80)}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
