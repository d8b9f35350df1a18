"""An evaluation as a text table."""

from __future__ import annotations

from collections.abc import Mapping

from data.imaging.metrics import METRICS
from engine.evaluation.feature_sets import DISTANCES
from engine.evaluation.intervals import mean_interval
from engine.evaluation.label_results import LabelEvaluation
from engine.evaluation.label_table import label_table
from engine.evaluation.picture_scale import PictureScale
from engine.evaluation.results import Evaluation, ImageMetrics, SplitEvaluation
from engine.evaluation.split_translator import BACK, FORWARD

_TITLES = {
    "ms_ssim": "MS-SSIM",
    "luma_psnr_db": "luma PSNR dB",
    "luma_ssim": "luma SSIM",
    "mask_iou": "mask IoU",
    "mask_dice": "mask Dice",
    "pixel_accuracy": "pixel accuracy",
    "lpips": "LPIPS",
}
_WIDTH = 14  # of the longest title

_DIRECTIONS = {
    FORWARD: "translations to real targets",
    BACK: "translations back to real inputs",
}


def table(evaluation: SplitEvaluation, *, split: str) -> str:
    """The evaluation as a text table: the model, its baselines and its reconstructions, one in each row.

    Distances between sets of images follow.
    """
    if isinstance(evaluation, LabelEvaluation):
        return label_table(evaluation, split=split)
    assert isinstance(evaluation, Evaluation)
    rows = {"model": evaluation.translations} if evaluation.translations else {}
    rows |= {f"baseline: {name}": images for name, images in evaluation.baseline_images.items()}
    rows |= evaluation.reconstruction_images
    several = evaluation.examples != 1
    lines = [f"{split}: {evaluation.examples} image{'s' if several else ''}"]
    if rows:
        lines[0] += f"; metrics on {PictureScale(value_range=evaluation.value_range)}"
        lines[0] += ", averaged over the images, with the 95 % interval of the mean" if several else ""
        width = max(len(name) for name in rows)
        lines.append(
            f"{'':{width}}  {'MAE':>9}  {'MSE':>10}  {'RMSE':>9}  {'PSNR dB':>8} {'':16}  {'SSIM':>7}"
        )
        lines += [f"{name:{width}}  {_row(images)}" for name, images in rows.items()]
        lines += _more_lines(rows, width, border=evaluation.luma_border)
    for way, direction in _DIRECTIONS.items():
        if f"{way}kid" in evaluation.distances:
            kid, fid = (evaluation.distances[f"{way}{name}"] for name in DISTANCES)
            lines.append(f"{direction}: KID {kid:.4g}, FID {fid:.4g} ({evaluation.extractor})")
    if evaluation.extractor and not evaluation.distances:
        lines.append("KID and FID: not measured, since they need two images on each side")
    if not rows and not evaluation.distances:
        lines[0] += ", unpaired: there is no target to compare with"
    if evaluation.mode:
        lines.insert(1, evaluation.mode)
    return "\n".join(lines)


def _more_lines(rows: Mapping[str, ImageMetrics], width: int, *, border: int) -> list[str]:
    """The metrics that a user has chosen, as a table of their own."""
    names = [name for name in next(iter(rows.values())).values if name not in METRICS]
    if not names:
        return []
    titles = [_TITLES.get(name, name) for name in names]
    lines = [f"{'':{width}}" + "".join(f"  {title:>{_WIDTH}}" for title in titles)]
    for name, images in rows.items():
        values = [f"{images.means[each]:{_WIDTH}.{2 if each.endswith('_db') else 4}f}" for each in names]
        lines.append(f"{name:{width}}  {'  '.join(values)}")
    if any(name.startswith("luma") for name in names):
        left_out = f"without a border of {border} pixels" if border else "of whole images"
        lines.append(f"luma metrics: Y' of BT.601, {left_out}")
    return lines


def _row(images: ImageMetrics) -> str:
    means = images.means
    interval = mean_interval(images.values["psnr_db"])
    psnr_interval = "" if interval is None else f"({interval[0]:.2f} to {interval[1]:.2f})"
    identical = f"  identical: {images.identical} of {images.examples}" if images.identical else ""
    return (
        f"{_number(means['mae'])}  {_number(means['mse'], 10)}  {_number(means['rmse'])}  "
        f"{means['psnr_db']:8.2f} {psnr_interval:16}  {means['ssim']:7.4f}{identical}"
    )


def _number(value: float, width: int = 9) -> str:
    """Two decimals for grey levels, more for values that are small beside them."""
    return f"{value:{width}.2f}" if value >= 1 or value == 0 else f"{value:{width}.4g}"
