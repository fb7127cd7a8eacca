"""Which base configs `base_config: auto` tries (docs/models.md), and how long."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from scripts.lib.settings.sections import Number, PositiveInt, Section

#: Lists by size, the cheapest first. Of models whose weights are free for any use, by the license in timm's index.
LISTS = {
    "small": (  # to about 8 million parameters: for a CPU, or for a phone
        "mobilenet-v2_8xb32_in1k",
        "timm/mobilenetv4_conv_small.e2400_r224_in1k",
        "timm/tf_efficientnet_lite0.in1k",
        "timm/efficientvit_b0.r224_in1k",
        "timm/efficientnet_b0.ra4_e3600_r224_in1k",
        "timm/convnext_atto.d2_in1k",
        "timm/repvit_m0_9.dist_450e_in1k",
        "timm/tiny_vit_5m_224.dist_in22k_ft_in1k",
    ),
    "medium": (  # to about 30 million: for one GPU
        "timm/efficientnet_b0.ra4_e3600_r224_in1k",
        "timm/mobilenetv4_conv_medium.e500_r256_in1k",
        "timm/resnet50d.ra2_in1k",
        "timm/efficientvit_b2.r224_in1k",
        "timm/tiny_vit_21m_224.dist_in22k_ft_in1k",
        "timm/convnext_tiny.in12k_ft_in1k",
        "timm/vit_small_patch14_reg4_dinov2.lvd142m",
        "timm/eva02_small_patch14_336.mim_in22k_ft_in1k",
    ),
    "large": (  # to about 90 million
        "timm/convnext_tiny.in12k_ft_in1k",
        "timm/vit_small_patch14_reg4_dinov2.lvd142m",
        "timm/convnext_base.fb_in22k_ft_in1k",
        "timm/swinv2_base_window12to16_192to256.ms_in22k_ft_in1k",
        "timm/vit_base_patch16_clip_quickgelu_224.openai",
        "timm/vit_base_patch14_reg4_dinov2.lvd142m",
        "timm/eva02_base_patch14_448.mim_in22k_ft_in22k_in1k",
    ),
}
ListName = Literal["small", "medium", "large"]


class Budget(Section):
    """What the search for a model may cost: exactly one of both."""

    minutes: Annotated[Number, Field(gt=0)] | None = Field(
        None,
        description="Minutes of the device, all jobs of the search together: of GPUs, or of a CPU with `threads`. What "
        "a candidate would cost is measured first; what does not fit is left out, and the page says so.",
    )
    models: PositiveInt | None = Field(None, description="The first so many of the candidates are tried.")

    @model_validator(mode="after")
    def _one_limit(self) -> Budget:
        if (self.minutes is None) == (self.models is None):
            raise ValueError("give one of minutes and models")
        return self
