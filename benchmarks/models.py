"""Which networks the coverage benchmark tries.

Every torchvision classification, segmentation and video model; of every timm module its smallest model (by parameters
and pixels) and a few well-known ones; and two-layer versions of well-known transformers architectures. No weights are
downloaded.
"""

from __future__ import annotations

TIMM = {
    # module of timm.models: models, the smallest first
    "beit": "beit_base_patch16_224 beitv2_base_patch16_224",
    "byoanet": "halonet_h1",
    "byobnet": "mobileone_s1 gernet_s repvgg_a0 mobileone_s0",
    "cait": "cait_xxs24_224",
    "coat": "coat_tiny coat_lite_tiny",
    "convit": "convit_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "convnext_zepto_rms convnext_atto convnextv2_atto",
    "cpubone": "cpubone_nano",
    "crossvit": "crossvit_tiny_240 crossvit_9_240",
    "csatv2": "csatv2",
    "cspnet": "cs3darknet_focus_s cspdarknet53 cspresnet50",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deepseek_vit": "deepseek_vit_412m",
    "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121",
    "dla": "dla46x_c",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "tinynet_e efficientnet_b0 mixnet_s tf_efficientnetv2_b0 fbnetc_100",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "eva": "eva02_tiny_patch14_224",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny",
    "gemma4_vit": "gemma4_vit_167m",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_b",
    "hgnet": "hgnetv2_b0",
    "hiera": "hiera_tiny_224",
    "hieradet_sam2": "hieradet_small",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s levit_conv_128s",
    "lowformer": "lowformer_b0",
    "mambaout": "mambaout_femto",
    "maxxvit": "maxvit_pico_rw_256 maxvit_nano_rw_256 coatnet_nano_rw_224 maxvit_tiny_tf_224",
    "metaformer": "poolformerv2_s12 poolformer_s12 caformer_s18 convformer_s18",
    "mlp_mixer": "gmlp_ti16_224 mixer_s32_224 resmlp_12_224",
    "mobilenetv3": "mobilenetv3_small_050 mobilenetv3_large_100",
    "mobilenetv5": "mobilenetv5_base",
    "mobilevit": "mobilevit_xxs mobilevitv2_050",
    "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_base_patch16_parfac_gap",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "nfnet": "nf_regnet_b0 nf_resnet26 dm_nfnet_f0",
    "pit": "pit_ti_224",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002 regnety_040",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "res2net": "res2next50 res2net50_26w_4s",
    "resnest": "resnest14d",
    "resnet": "resnet10t resnet18 resnet50 seresnet50 resnext50_32x4d ecaresnet50t",
    "resnetv2": "resnetv2_18 resnetv2_50",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18 legacy_senet154",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_legacy_patch16_224",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small twins_pcpvt_small",
    "vgg": "vgg11",
    "visformer": "visformer_tiny",
    "vision_transformer": "vit_tiny_patch16_224 vit_base_patch16_224",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "vit_srelpos_small_patch16_224",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224",
    "vovnet": "ese_vovnet19b_slim_dw ese_vovnet19b_dw",
    "xception": "legacy_xception",
    "xception_aligned": "xception41p",
    "xcit": "xcit_nano_12_p8_224",
}

TRANSFORMERS = """
bert roberta distilbert albert electra gpt2 gpt_neox opt bloom llama mistral qwen2 qwen3 gemma gemma2 phi mixtral
t5 bart whisper wav2vec2 vit deit swin segformer convnext dinov2 clip
""".split()


def names() -> list[str]:
    """Return the names of all models, as ``es.model`` reads them."""
    return [
        *(f"torchvision:{name}" for name in _torchvision()),
        *(f"timm:{name}" for several in TIMM.values() for name in several.split()),
        *(f"transformers:tiny-{kind}" for kind in TRANSFORMERS),
    ]


def uncovered() -> list[str]:
    """Return the timm modules of which no model is tried; a newer timm has new ones."""
    _import_torchvision()
    import timm

    return [module for module in timm.list_modules() if module not in TIMM and timm.list_models(module=module)]


def _torchvision() -> list[str]:
    _import_torchvision()
    from torchvision import models

    return [name for part in (models, models.segmentation, models.video) for name in models.list_models(part)]


def _import_torchvision() -> None:
    """Import torchvision as ``es.model`` does, which works beside a CPU-only PyTorch too."""
    import espalier as es

    es.model("torchvision:squeezenet1_0")
