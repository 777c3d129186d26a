"""The public models that ``bench.architectures`` tries; torchvision lists its own."""

from __future__ import annotations

from typing import Any

TIMM = (
    "vgg11_bn", "crossvit_tiny_240", "mobilevit_s", "twins_svt_small", "tiny_vit_5m_224", "nest_tiny",
    "vit_tiny_r_s16_p8_224", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s32_224", "levit_128s",
    "convnext_atto", "resnet18", "efficientnet_b0", "maxvit_rmlp_pico_rw_256", "coat_tiny", "poolformer_s12",
    "edgenext_xx_small", "mobilenetv4_conv_small", "repvit_m1", "fastvit_t8", "efficientformer_l1", "gcvit_xxtiny",
    "pit_ti_224", "cait_xxs24_224", "xcit_nano_12_p16_224", "davit_tiny", "hiera_tiny_224", "eva02_tiny_patch14_224",
    "regnetx_002", "densenet121", "ghostnet_100", "rexnet_100", "mnasnet_100", "hardcorenas_a", "tf_mixnet_s",
    "lcnet_050", "dla34", "hrnet_w18_small", "res2net50_14w_8s", "resnest14d", "seresnet18", "skresnet18",
    "cspresnet50", "dpn48b", "inception_v3", "xception41", "selecsls42", "vovnet39a", "ese_vovnet19b_dw",
    "resmlp_12_224", "gmlp_s16_224", "convmixer_768_32", "visformer_tiny", "deit_tiny_patch16_224",
    "beit_base_patch16_224",
    "volo_d1_224", "sequencer2d_s", "efficientvit_b0", "efficientvit_m0", "convformer_s18", "poolformerv2_s12",
    "inception_next_tiny", "mambaout_femto", "starnet_s1", "nextvit_small", "pvt_v2_b0", "focalnet_tiny_srf",
    "tnt_s_legacy_patch16_224", "repvgg_a0", "mobileone_s0", "nf_resnet26", "botnet26t_256", "halonet26t",
    "lambda_resnet26t", "swinv2_cr_tiny_224", "hgnet_tiny", "rdnet_tiny", "shvit_s1",
)  # fmt: skip
"""One small model of each of many families; what a version of timm does not have is said in the table."""

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
WORDS = {"vocab_size": 100, "num_labels": 4, "pad_token_id": 0}
_LIKE_BERT = ("Bert", "Roberta", "Electra", "Llama", "Ernie", "Camembert", "MegatronBert",
              "RoFormer", "XLMRoberta", "ConvBert", "MPNet", "Nystromformer", "LayoutLM")  # fmt: skip
TEXTS: dict[str, dict[str, Any]] = {
    **{key: {**SMALL, **WORDS} for key in _LIKE_BERT},
    **{key: {**SMALL, **WORDS, "num_key_value_heads": 2} for key in ("Mistral", "Qwen2")},
    "Albert": {**SMALL, **WORDS, "embedding_size": 16},
    "DistilBert": {"dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 64, **WORDS},
    "GPT2": {"n_embd": 32, "n_layer": 3, "n_head": 2, **WORDS},
    "GPTNeoX": {**SMALL, **WORDS},
    "OPT": {**SMALL, **WORDS, "ffn_dim": 64, "word_embed_proj_dim": 32},
}
IMAGES: dict[str, dict[str, Any]] = {
    "ViT": {**SMALL, "image_size": 32, "patch_size": 8},
    "Swin": {"image_size": 32, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2},
    "ConvNext": {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 32]},
    "ResNet": {"depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 48, 64], "embedding_size": 8},
    "Dinov2": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32, "patch_size": 8},
    "MobileNetV2": {"image_size": 64},
    "RegNet": {"embedding_size": 8, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1], "groups_width": 8},
}
"""Families of transformers, in sizes that take seconds."""

CIFAR = {
    "VGG11": "VGG('VGG11')", "VGG16": "VGG('VGG16')", "ResNet18": "ResNet18()", "ResNet50": "ResNet50()",
    "PreActResNet18": "PreActResNet18()", "GoogLeNet": "GoogLeNet()", "DenseNetCifar": "densenet_cifar()",
    "ResNeXt29": "ResNeXt29_2x64d()", "MobileNet": "MobileNet()", "MobileNetV2": "MobileNetV2()", "DPN26": "DPN26()",
    "ShuffleNetV2": "ShuffleNetV2(1)", "SENet18": "SENet18()", "EfficientNetB0": "EfficientNetB0()",
    "RegNetX200": "RegNetX_200MF()", "SimpleDLA": "SimpleDLA()", "DLA": "DLA()", "LeNet": "LeNet()",
    "PNASNetA": "PNASNetA()",
}  # fmt: skip
"""The expression that makes each model of pytorch-cifar."""
