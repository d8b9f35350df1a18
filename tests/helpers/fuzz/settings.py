"""Draws the settings of a run, as --gin_param takes them."""

from __future__ import annotations

import random

from tests.helpers.fuzz.pictures import PAIRED, Pictures, chance

TASKS = {
    "pix2pix": ("pix2pix.Pix2Pix", PAIRED),
    "quickstart": ("pix2pix.Pix2Pix", PAIRED),
    "pix2pix_facades": ("pix2pix.Pix2Pix", PAIRED),
    "codec": ("pix2pix.Pix2Pix", PAIRED),
    "supervised": ("supervised.Supervised", PAIRED),
    "bicycle_gan": ("bicycle_gan.BicycleGan", PAIRED),
    "cyclegan": ("cyclegan.CycleGan", ("unpaired",)),
    "cut": ("cut.Cut", ("unpaired",)),
    "fastcut": ("cut.Cut", ("unpaired",)),
    "denoising": ("pix2pix.Pix2Pix", ("single",)),
    "super_resolution": ("super_resolution.SuperResolution", ("single",)),
    "colourisation": ("colourisation.Colourisation", ("single",)),
}
"""Name of a gin file -> the class of its task, the layouts of its data."""

_AUGMENTATIONS = (
    "geometry.Rotation",
    "geometry.Crop",
    "geometry.Flip",
    "geometry.RandomResizedCrop",
    "colour.ColourJitter",
    "colour.Grey",
    "colour.Invert",
    "degradation.GaussianBlur",
    "degradation.Noise",
    "degradation.Cutout",
    "degradation.JpegCompression",
    "degradation.Downscale",
)
_SCHEDULES = {
    "stepwise": ("BATCH_SCHEDULE = '0:1, 2:2, 6:4'",),
    "adabatch": ("GROW_EVERY = 4", "batch_schedules.Geometric.maximum = 4"),
    "noise_scale": (
        "adaptive_batch.GrowByNoiseScale.every = 2",
        "adaptive_batch.GrowByNoiseScale.maximum = 4",
    ),
    "norm_test": ("adaptive_batch.GrowByNoiseScale.every = 2", "adaptive_batch.GrowByNoiseScale.maximum = 4"),
    "smith_plateau": (
        "EVALUATE_EVERY = 2",
        "adaptive_batch.GrowOnPlateau.patience = 1",
        "adaptive_batch.GrowOnPlateau.factor = 2.0",
        "adaptive_batch.GrowOnPlateau.maximum = 4",
    ),
}
"""Name of a file in gin/schedules/ -> settings that let it grow within a few steps."""


def draw_sizes(drawn: random.Random, task: str) -> list[str]:
    """LOAD_SIZE and CROP_SIZE, some of which do not fit the network."""
    crop = "32" if chance(drawn, 0.9) else drawn.choice(["(32, 40)", "24", "64", "33"])
    load = drawn.choice(["32", "36", "0", "(36, 44)"]) if chance(drawn, 0.97) else "24"
    if crop == "64":
        load = drawn.choice(["64", "70"])
    params = [f"CROP_SIZE = {crop}", f"LOAD_SIZE = {load}"]
    if task == "super_resolution":
        params.append(f"single.SingleImages.downscale = {drawn.choice([1, 2, 4])}")
    return params


def draw_networks(drawn: random.Random, task: str) -> list[str]:
    """Settings that make the networks tiny, and of their layers."""
    name = TASKS[task][0]
    filters = drawn.choice([1, 2])
    params = [f'NORM = "{drawn.choice(["batch", "instance", "none"])}"'] if chance(drawn, 0.6) else []
    if task != "super_resolution":
        params.append(f"DROPOUT = {drawn.choice([True, False])}")
    if task == "bicycle_gan":
        params += [
            'latent_networks.LatentNetworks.generator = "unet_32"',
            'latent_networks.LatentNetworks.encoder = "resnet_32"',
            f"latent_networks.LatentNetworks.generator_filters = {filters}",
            f"latent_networks.LatentNetworks.encoder_filters = {filters}",
            f'latent_networks.LatentNetworks.latent_at = "{drawn.choice(["all", "input"])}"',
            f"scaled_discriminators.ScaledDiscriminators.filters = {filters}",
            f"scaled_discriminators.ScaledDiscriminators.scales = {1 if chance(drawn, 0.8) else 2}",
            f'bicycle_gan.BicycleGan.variant = "{drawn.choice(["bicycle_gan", "cvae_gan", "clr_gan"])}"',
        ]
    else:
        params.append(f"{name}.generator_filters = {filters}")
        if task != "supervised":
            params.append(f"{name}.discriminator_filters = {filters}")
    if task == "super_resolution":
        params.append("super_resolution.SuperResolution.blocks = 1")
    elif task in ("cut", "fastcut"):
        network = "resnet_6blocks" if chance(drawn, 0.9) else "unet_32"
        params += [
            f'{name}.generator = "{network}"',
            "patch_nce.PatchNce.patches = 4",
            "patch_nce.PatchNce.width = 4",
        ]
    elif task != "bicycle_gan":
        networks = ["unet_32"] * 8 + ["resnet_6blocks", "edsr_8blocks"] + ["unet_64"] * chance(drawn, 0.3)
        params.append(f'{name}.generator = "{drawn.choice(networks)}"')
    if task == "cyclegan":
        params.append(f"cyclegan.CycleGan.pool_size = {drawn.choice([0, 2, 50])}")
    if chance(drawn, 0.2):
        params.append(f"{name}.ema_decay = 0.9")
    return params


def draw_losses(drawn: random.Random, task: str) -> list[str]:
    """Adversarial loss, regularisation, distances, clipping."""
    name = TASKS[task][0]
    params = []
    if task != "supervised" and chance(drawn, 0.3):
        owner = "scaled_discriminators.ScaledDiscriminators" if task == "bicycle_gan" else name
        loss = drawn.choice(["bce", "lsgan", "hinge", "wgan_gp", "relativistic"])
        params.append(f'{owner}.gan_loss = "{loss}"')
    if task != "supervised" and chance(drawn, 0.3):
        setting = drawn.choice(
            [
                "spectral_norm = True",
                "r1 = 0.1",
                "label_smoothing = 0.1",
                "diff_augment = ('colour', 'cutout')",
            ]
        )
        params.append(f"regularisation.Regularisation.{setting}")
    if name in ("pix2pix.Pix2Pix", "supervised.Supervised", "super_resolution.SuperResolution"):
        if chance(drawn, 0.3):
            weight = drawn.choice(
                ["l2", "charbonnier", "ssim", "satd_4x4", "satd_8x8", "dct", "total_variation"]
            )
            params.append(f"fidelity.Fidelity.{weight} = 1.0")
        if name != "supervised.Supervised" and chance(drawn, 0.2):
            params.append(f"{name}.{drawn.choice(['feature_matching_weight = 1.0', 'top_k = 0.5'])}")
    if chance(drawn, 0.15):
        params.append("task.Adam.clip_norm = 1.0")
    return params


def draw_precision(drawn: random.Random, replicas: int) -> list[str]:
    """Precision, micro-batches, XLA, and what is checked and kept."""
    params = []
    if chance(drawn, 0.4):
        params.append(f'PRECISION = "{drawn.choice(["bfloat16", "float16", "float64"])}"')
    if chance(drawn, 0.3):
        params.append(f"LARGEST_MICRO_BATCH = {drawn.choice([1, 2])}")
    elif replicas == 1 and chance(drawn, 0.05):
        params.append("JIT_COMPILE = True")
    if chance(drawn, 0.2):
        params.append(f'experiment.Experiment.on_non_finite = "{drawn.choice(["skip", "restore"])}"')
    if chance(drawn, 0.15):
        params.append("CHECK_REPLICAS_EVERY = 2")
    if chance(drawn, 0.1):
        params.append("KEEP_CHECKPOINTS = 1")
    return params


def draw_schedule(drawn: random.Random, task: str) -> tuple[list[str], list[str]]:
    """Gin files and settings of the batch schedule."""
    if chance(drawn, 0.3):
        name = drawn.choice(list(_SCHEDULES))
        if name == "smith_plateau" and "unpaired" in TASKS[task][1] and chance(drawn, 0.8):
            name = "stepwise"  # there is no metric that it could follow
        return [f"gin/schedules/{name}.gin"], list(_SCHEDULES[name])
    schedule = drawn.choice(["1", "2", "3", "5", "'0:1, 3:2, 7:3'", "'0:3, 4:1'", "'0ep:1, 1ep:2'"])
    params = [f"BATCH_SCHEDULE = {schedule}"]
    if chance(drawn, 0.3):
        rule = drawn.choice(["linear", "square_root", "square_root_beta1_kept"])
        params.append(f'LEARNING_RATE_RULE = "{rule}"')
    return [], params


def draw_augmentations(drawn: random.Random) -> tuple[list[str], list[str]]:
    """Gin files and settings of the augmentations."""
    if not chance(drawn, 0.35):
        return [], []
    chosen = drawn.sample(_AUGMENTATIONS, drawn.choice([1, 2, 3]))
    return ["gin/augmentations.gin"], [f"AUGMENTATIONS = [{', '.join(f'@{each}()' for each in chosen)}]"]


def draw_data_settings(drawn: random.Random, pictures: Pictures) -> list[str]:
    """How pictures are resized, coloured and read."""
    owners = {"single": "single.SingleImages", "unpaired": "unpaired.UnpairedImages"}
    owner = owners.get(pictures.layout, "pairs.PairedImages")
    params = []
    if pictures.classes and chance(drawn, 0.6):
        params.append('pairs.PairedImages.label_encoding = "one_hot"')
    if chance(drawn, 0.15):
        params.append(f'{owner}.resize = "resize_with_pad"')
    if chance(drawn, 0.15) and (pictures.channels == (3, 3) or chance(drawn, 0.2)):
        space = drawn.choice(["lab", "ycbcr_bt601_full", "ycbcr_bt709_studio"])
        params.append(f'{owner}.colour_space = "{space}"')
    if chance(drawn, 0.15):
        params.append(f'supply.Supply.cache = "{drawn.choice(["memory", "disk"])}"')
    if chance(drawn, 0.1):
        params.append("TRAIN_FRACTION = 0.5")
    return params
