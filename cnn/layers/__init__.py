"""Every layer that a config may use. To add your own: `LAYERS["swish"] = Swish`."""

from cnn.layer import Layer
from cnn.layers import (
    activation,
    conv,
    conv_transpose,
    dropout,
    embedding,
    linear,
    norm,
    pool,
    rectifiers,
    shape,
    upsample,
)

__all__ = ["LAYERS"]

LAYERS: dict[str, type[Layer]] = {
    layer.kind: layer
    for layer in (
        *(conv.Conv1d, conv.Conv2d, conv.Conv3d),
        *(conv_transpose.ConvTranspose1d, conv_transpose.ConvTranspose2d, conv_transpose.ConvTranspose3d),
        *(linear.Linear, embedding.Embedding),
        *(pool.MaxPool1d, pool.MaxPool2d, pool.MaxPool3d, pool.AvgPool1d, pool.AvgPool2d, pool.AvgPool3d),
        pool.GlobalAvgPool,
        *(norm.BatchNorm, norm.GroupNorm, norm.InstanceNorm, norm.LayerNorm),
        *(dropout.Dropout, dropout.Dropout2d, dropout.Dropout3d),
        *(activation.ReLU, rectifiers.LeakyReLU, rectifiers.PReLU, rectifiers.ELU, rectifiers.Softplus),
        *(activation.GELU, activation.SiLU, rectifiers.HardSwish),
        *(activation.Sigmoid, activation.Tanh, activation.Softmax, activation.LogSoftmax),
        *(shape.Flatten, shape.Reshape, shape.PixelShuffle, shape.Identity),
        upsample.Upsample,
    )
}
