"""Networks that the authors of CUT and BicycleGAN save: their parameters, and the weights of ours.

CUT's generator and discriminator without antialiasing are those of the reference, which
`models.pytorch.architecture` recognises; its projector and BicycleGAN's networks are here.

Sources: taesungp/contrastive-unpaired-translation (at 1988a48) and junyanz/BicycleGAN (at 65ebe9f).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import keras
import numpy as np

from engine.errors import ConfigurationError
from models.networks.conditioning import TiledConcatenation
from models.networks.norms import InstanceNorm
from models.pytorch.architecture import Shapes
from models.pytorch.parameter_names import listed, to_keras_layout, unet_layers

_SCALE = re.compile(r"model_?(\d+)\.(\d+\.(?:weight|bias))")  # of BicycleGAN's discriminators
_HALVING = re.compile(r"halve_\d+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuthorNetwork:
    """A network of these authors, and ours of the same function.

    Attributes:
      name: for messages.
      paths: parameter -> path of our weight.
      swapped: paths of kernels that see the skip connection behind the upsampled features, where ours see it
        before them.
    """

    name: str
    paths: Mapping[str, str]
    swapped: frozenset[str] = frozenset()

    def weights(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Converts those of the parameters that this network has.

        Args:
          arrays: the parameters, in PyTorch's layout.

        Returns:
          Path of our weight -> array in our layout.
        """
        return {path: self._weight(path, arrays[name]) for name, path in self.paths.items() if name in arrays}

    def fitting_weights(
        self, model: keras.Model, arrays: Mapping[str, np.ndarray], *, where: str
    ) -> dict[str, np.ndarray]:
        """Converts all parameters to all weights of a model.

        Args:
          model: ours.
          arrays: the parameters, in PyTorch's layout.
          where: source of the arrays, for errors.

        Raises:
          ConfigurationError: some are missing or surplus, have other shapes, or are not finite.
        """
        found, wanted = self.weights(arrays), {weight.path: tuple(weight.shape) for weight in model.weights}
        names = {path: name for name, path in self.paths.items()}
        lists = {
            "missing": [name for name in self.paths if name not in arrays],
            "not in it": [path for path in wanted if path not in names],
            "too many": [names[path] for path in found if path not in wanted],
            "of another shape": [
                f"{names[path]} {list(array.shape)} for {list(wanted[path])} in our layout"
                for path, array in found.items()
                if path in wanted and array.shape != wanted[path]
            ],
            "not finite": [names[path] for path, array in found.items() if not np.isfinite(array).all()],
        }
        told = "; ".join(f"{what}: {listed(these)}" for what, these in lists.items() if these)
        if told:
            raise ConfigurationError(
                f"{where}: holds {self.name}, which does not fit {model.name} ({told}); give a complete file "
                "of that network, or choose the network of this file"
            )
        return found

    def _weight(self, path: str, array: np.ndarray) -> np.ndarray:
        array = array.T if array.ndim == 2 else to_keras_layout(array)
        if path in self.swapped:
            array = np.concatenate(np.split(array, 2, axis=-1)[::-1], axis=-1)  # [h, w, out, in]
        return array


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodedUnet:
    """The sizes of BicycleGAN's generator with the code at every downsampling.

    Attributes:
      network: its key in `models.networks.generators.GENERATORS`.
      latent_size: numbers of a code.
      filters: channels of the first layer.
      input_channels: of pictures, without the code.
      output_channels: of outputs.
    """

    network: str
    latent_size: int
    filters: int
    input_channels: int
    output_channels: int


def coded_unet(shapes: Shapes, *, where: str) -> CodedUnet | None:
    """Reads off the sizes of BicycleGAN's generator; None if the parameters are those of another network.

    Raises:
      ConfigurationError: a parameter that says so is missing, or sizes do not go together.
    """
    if "model.down.0.weight" not in shapes:
        return None
    depth = 1 + max(name.count("submodule.") for name in shapes)
    innermost = "model" + ".submodule" * (depth - 1) + ".down.1.weight"
    names = ("model.down.0.weight", "model.submodule.down.1.weight", "model.up.1.weight", innermost)
    found = [shapes[name] for name in names if len(shapes.get(name, ())) == 4]
    if len(found) == len(names):
        (filters, seen, *_), (_, given, *_), (_, outputs, *_), (widest, *_) = found
        code = given - filters
        # The widest layer too, so that a small file cannot make us build a huge network.
        if 0 < code < seen and widest == 8 * filters:
            return CodedUnet(
                network=f"unet_{2**depth}",
                latent_size=code,
                filters=filters,
                input_channels=seen - code,
                output_channels=outputs,
            )
    raise ConfigurationError(
        f"{where}: is no complete generator of BicycleGAN (G_Unet_add_all); copy the file again"
    )


def author_network(shapes: Shapes, model: keras.Model | None, *, where: str) -> AuthorNetwork | None:
    """Recognises a network of these authors by the names of its parameters.

    Args:
      shapes: of the parameters in a file.
      model: ours that shall take them, which tells files apart that hold the same names; None if not known.
      where: the file, for errors.

    Returns:
      None if the file holds no such network.

    Raises:
      ConfigurationError: the file holds a network of theirs that computes something else than ours.
    """
    if filters := [name for name in shapes if name.endswith(".filt")]:
        raise ConfigurationError(
            f"{where}: holds a network of CUT with antialiasing ({filters[0]} and such are its blur "
            "filters), which is not here yet; give one that was trained with --no_antialias --no_antialias_up"
        )
    if "mlp_0.0.weight" in shapes:
        return _projector(shapes)
    if "fc.0.weight" in shapes:
        return _encoder(shapes, model, where=where)
    if any(_SCALE.fullmatch(name) for name in shapes):
        return _discriminator(shapes, model, where=where)
    if "model.down.0.weight" in shapes:
        return _unet_with_code_at_all_levels(shapes, where=where)
    if model is not None and _takes_code(model) and "model.model.0.weight" in shapes:
        return _unet_with_code_at_input(shapes, where=where)
    return None


def _parameters(layers: Mapping[str, str]) -> dict[str, str]:
    """Parameter -> path of our weight, of modules that have a weight and a bias."""
    return {
        f"{module}.{theirs}": f"{layer}/{ours}"
        for module, layer in layers.items()
        for theirs, ours in (("weight", "kernel"), ("bias", "bias"))
    }


def _projector(shapes: Shapes) -> AuthorNetwork:
    """PatchSampleF of CUT."""
    count = len([name for name in shapes if re.fullmatch(r"mlp_\d+\.0\.weight", name)])
    perceptron = ((0, "hidden"), (2, "projected"))
    layers = {f"mlp_{n}.{index}": f"{layer}_{n}" for n in range(count) for index, layer in perceptron}
    return AuthorNetwork(name="CUT's projector (PatchSampleF)", paths=_parameters(layers))


def _encoder(shapes: Shapes, model: keras.Model | None, *, where: str) -> AuthorNetwork:
    """E_ResNet of BicycleGAN."""
    if not any(re.match(r"conv\.\d+\.conv\.", name) for name in shapes):
        raise ConfigurationError(
            f"{where}: holds BicycleGAN's plain encoder (E_NLayers, --netE conv_...), which has no residual "
            "blocks as ours has; give one of --netE resnet_..."
        )
    _refuse_batch_norm(shapes, "encoder", where=where)
    blocks = len([name for name in shapes if re.fullmatch(r"conv\.\d+\.shortcut\.1\.weight", name)])
    has_norm = "conv.1.conv.2.weight" in shapes
    if model is not None and has_norm != any(isinstance(layer, InstanceNorm) for layer in model.layers):
        holds, wanted = ("instance norm", "none") if has_norm else ("no norm", "one")
        raise ConfigurationError(
            f"{where}: holds BicycleGAN's encoder with {holds}, but {model.name} has {wanted}; set "
            f"LatentNetworks.norm = '{'instance' if has_norm else 'none'}'"
        )
    first, second = ("2", "5.0") if has_norm else ("1", "3.0")
    layers = {"conv.0": "first_conv", "fc.0": "mean", "fcVar.0": "log_variance"}
    for block in range(1, blocks + 1):
        layers[f"conv.{block}.conv.{first}"] = f"block_{block}_conv_1"
        layers[f"conv.{block}.conv.{second}"] = f"block_{block}_conv_2"
        layers[f"conv.{block}.shortcut.1"] = f"block_{block}_shortcut_conv"
    name = f"BicycleGAN's encoder of {blocks + 1} downsamplings (E_ResNet)"
    return AuthorNetwork(name=name, paths=_parameters(layers))


def _discriminator(shapes: Shapes, model: keras.Model | None, *, where: str) -> AuthorNetwork:
    """The scale of D_NLayersMulti of BicycleGAN that the model has: the first sees pictures at full size."""
    _refuse_batch_norm(shapes, "discriminators", where=where)
    scale = 0 if model is None else sum(bool(_HALVING.fullmatch(layer.name)) for layer in model.layers)
    found = {
        match[2]: name for name in shapes if (match := _SCALE.fullmatch(name)) and match[1] == str(scale)
    }
    if not found:
        raise ConfigurationError(
            f"{where}: holds BicycleGAN's discriminators, but none at 1/{2**scale} of the size of pictures; "
            "use fewer ScaledDiscriminators.scales"
        )
    last = max(int(name.partition(".")[0]) for name in found)
    names = {0: "conv_0", last: "logits"} | {3 * n - 1: f"conv_{n}" for n in range(1, (last - 2) // 3 + 1)}
    prefix = next(iter(found.values())).partition(".")[0]
    return AuthorNetwork(
        name=f"BicycleGAN's discriminator {scale + 1} of {(last - 2) // 3} layers (D_NLayersMulti)",
        paths=_parameters({f"{prefix}.{number}": layer for number, layer in names.items()}),
    )


def _unet_with_code_at_all_levels(shapes: Shapes, *, where: str) -> AuthorNetwork:
    """G_Unet_add_all of BicycleGAN: level k + 1 is the submodule of level k."""
    _refuse_batch_norm(shapes, "generator", where=where)
    depth = 1 + max(name.count("submodule.") for name in shapes)
    _refuse_bilinear(is_bilinear="model.up.3.weight" in shapes, where=where)
    layers = {}
    for level in range(1, depth + 1):
        block = "model" + ".submodule" * (level - 1)
        layers[f"{block}.down.{0 if level == 1 else 1}"] = f"down_{level}_conv"
        layers[f"{block}.up.1"] = f"up_{level}_conv"
    return _unet(layers, depth, "G_Unet_add_all")


def _unet_with_code_at_input(shapes: Shapes, *, where: str) -> AuthorNetwork:
    """G_Unet_add_input of BicycleGAN, whose names are those of the reference's U-Net."""
    _refuse_batch_norm(shapes, "generator", where=where)
    _refuse_bilinear(is_bilinear="model.model.5.weight" in shapes, where=where)
    if any(name.startswith("model.model.1.model.2.model.") for name in shapes):
        raise ConfigurationError(
            f"{where}: holds BicycleGAN's generator with the code at its input and no norm, whose parameters "
            "have other names; give one that was trained with --norm instance"
        )
    depth = 2 + max(name.count("3.model.") for name in shapes)
    layers = unet_layers(downsamplings=depth)
    convolutions = {module: layer for module, layer in layers.items() if layer.endswith("_conv")}
    return _unet(convolutions, depth, "G_Unet_add_input")


def _unet(layers: Mapping[str, str], depth: int, kind: str) -> AuthorNetwork:
    return AuthorNetwork(
        name=f"BicycleGAN's generator unet_{2**depth} ({kind})",
        paths=_parameters(layers),
        swapped=frozenset(f"up_{level}_conv/kernel" for level in range(1, depth)),
    )


def _takes_code(model: keras.Model) -> bool:
    return any(isinstance(layer, TiledConcatenation) for layer in model.layers)


def _refuse_batch_norm(shapes: Shapes, what: str, *, where: str) -> None:
    if any(name.endswith(".weight") and len(shape) == 1 for name, shape in shapes.items()):
        raise ConfigurationError(
            f"{where}: holds BicycleGAN's {what} with batch norm, whose convolutions have biases that ours "
            "lack there; give one that was trained with --norm instance"
        )


def _refuse_bilinear(*, is_bilinear: bool, where: str) -> None:
    if is_bilinear:
        raise ConfigurationError(
            f"{where}: holds BicycleGAN's generator with --upsample bilinear, but ours upsamples with "
            "transposed convolutions; give one that was trained with --upsample basic"
        )
