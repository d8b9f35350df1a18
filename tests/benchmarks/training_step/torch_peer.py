"""A peer of `compare`: the steps of pix2pix and CycleGAN in PyTorch, in the update order of the reference.

Run it in an environment that has torch. On a GPU it computes channels-last, with cuDNN's benchmark and TF32.
"""

import argparse
import itertools
import random

import torch
from torch.nn import functional

from tests.benchmarks.training_step import torch_networks
from tests.benchmarks.training_step.peer_protocol import serve


def _set_requires_grad(network, value):
    for parameter in network.parameters():
        parameter.requires_grad_(value)


def _adam(*networks):
    parameters = itertools.chain(*(network.parameters() for network in networks))
    return torch.optim.Adam(parameters, lr=2e-4, betas=(0.5, 0.999))


def _initialise(network):
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            torch.nn.init.normal_(module.weight, 0.0, 0.02)
    return network


def pix2pix_step(place, scaler, levels=8, filters=64):
    """Returns a step: image, target -> losses.

    `place` is where networks are, for `torch.nn.Module.to`; `scaler` scales losses, or not if it is disabled.
    """
    generator = _initialise(torch_networks.Unet(levels, filters)).to(**place)
    discriminator = _initialise(
        torch_networks.patch_discriminator(6, norm=torch.nn.BatchNorm2d, filters=filters)
    ).to(**place)
    of_generator, of_discriminator = _adam(generator), _adam(discriminator)

    def gan(logits, is_real):
        wanted = torch.full_like(logits, float(is_real))
        return functional.binary_cross_entropy_with_logits(logits, wanted)

    def step(image, target):
        fake = generator(image)
        _set_requires_grad(discriminator, True)
        of_discriminator.zero_grad()
        loss = gan(discriminator(torch.cat([image, fake.detach()], 1)), False)
        loss = (loss + gan(discriminator(torch.cat([image, target], 1)), True)) / 2
        scaler.scale(loss).backward()
        scaler.step(of_discriminator)
        _set_requires_grad(discriminator, False)
        of_generator.zero_grad()
        total = gan(discriminator(torch.cat([image, fake], 1)), True)
        total = total + 100.0 * functional.l1_loss(fake, target)
        scaler.scale(total).backward()
        scaler.step(of_generator)
        scaler.update()
        return total.detach(), loss.detach()

    return step


class Pool:
    """The last 50 fakes, of which discriminators see some."""

    def __init__(self, size=50):
        self.size, self.images = size, []

    def query(self, images):
        """Returns images of the pool or these, each with probability 1/2 once the pool is full."""
        chosen = []
        for image in images:
            if len(self.images) < self.size:
                self.images.append(image)
                chosen.append(image)
            elif random.random() > 0.5:
                place = random.randrange(self.size)
                chosen.append(self.images[place])
                self.images[place] = image
            else:
                chosen.append(image)
        return torch.stack(chosen)


def cyclegan_step(place, scaler):
    """Returns a step: a, b -> losses; the arguments are those of `pix2pix_step`."""
    a_to_b, b_to_a = (_initialise(torch_networks.resnet()).to(**place) for _ in range(2))
    critics = [
        _initialise(torch_networks.patch_discriminator(3, norm=torch.nn.InstanceNorm2d)).to(**place)
        for _ in range(2)
    ]
    of_generators, of_critics = _adam(a_to_b, b_to_a), _adam(*critics)
    pools = [Pool(), Pool()]

    def gan(logits, is_real):
        return functional.mse_loss(logits, torch.full_like(logits, float(is_real)))

    def step(a, b):
        fake_b, fake_a = a_to_b(a), b_to_a(b)
        for critic in critics:
            _set_requires_grad(critic, False)
        of_generators.zero_grad()
        total = gan(critics[0](fake_b), True) + gan(critics[1](fake_a), True)
        total = total + 10.0 * functional.l1_loss(b_to_a(fake_b), a)
        total = total + 10.0 * functional.l1_loss(a_to_b(fake_a), b)
        total = total + 5.0 * functional.l1_loss(a_to_b(b), b) + 5.0 * functional.l1_loss(b_to_a(a), a)
        scaler.scale(total).backward()
        scaler.step(of_generators)
        of_critics.zero_grad()
        losses = []
        for critic, pool, real, fake in zip(critics, pools, (b, a), (fake_b, fake_a), strict=True):
            _set_requires_grad(critic, True)
            loss = (gan(critic(real), True) + gan(critic(pool.query(fake.detach())), False)) / 2
            scaler.scale(loss).backward()
            losses.append(loss.detach())
        scaler.step(of_critics)
        scaler.update()
        return total.detach(), *losses

    return step


def main():
    """Serves steps on a constant batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=("pix2pix", "cyclegan", "quickstart"), required=True)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--float16", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    place = {"device": options.device}
    if options.device == "cuda":
        place["memory_format"] = torch.channels_last
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # TF32, as TensorFlow; cuDNN's convolutions have it anyway
    images = [torch.rand(options.batch, 3, options.size, options.size) * 2 - 1 for _ in range(2)]
    images = [image.to(**place) for image in images]
    scaler = torch.amp.GradScaler(options.device, enabled=options.float16)
    if options.task == "cyclegan":
        step = cyclegan_step(place, scaler)
    else:
        levels, filters = (6, 32) if options.task == "quickstart" else (8, 64)
        step = pix2pix_step(place, scaler, levels, filters)
    half = torch.float16 if options.float16 else torch.bfloat16
    with torch.autocast(options.device, half, enabled=options.bfloat16 or options.float16):
        if options.device == "cuda":
            cuda = torch.cuda
            serve(lambda: step(*images), finish=cuda.synchronize, peak_bytes=cuda.max_memory_allocated)
        else:
            serve(lambda: [loss.item() for loss in step(*images)])


if __name__ == "__main__":
    main()
