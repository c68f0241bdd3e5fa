"""Fashion-MNIST: clothing, in the format, shape and number of MNIST (Xiao, Rasul and Vollgraf 2017)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cnn.arguments import NonNegative, Positive, Text
from runners.data.dataset import Examples, ValSplit, reading
from runners.data.download import Remote, cache_folder, fetch, verify_digest
from runners.data.sources.idx import Array, Idx, header

ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
FILES = {
    ("train", "images"): Remote(
        f"{ADDRESS}/train-images-idx3-ubyte.gz",
        26421880,
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    ("train", "labels"): Remote(
        f"{ADDRESS}/train-labels-idx1-ubyte.gz",
        29515,
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
    ("t10k", "images"): Remote(
        f"{ADDRESS}/t10k-images-idx3-ubyte.gz",
        4422102,
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ),
    ("t10k", "labels"): Remote(
        f"{ADDRESS}/t10k-labels-idx1-ubyte.gz",
        5148,
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
}
UNPACKED = {
    ("train", "images"): "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ("train", "labels"): "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ("t10k", "images"): "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ("t10k", "labels"): "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""SHA-256 of the unpacked content: files added manually may be compressed differently, or not at all."""


class FashionMnist(Idx):
    """The official files, in `path` or in the cache folder; missing ones are downloaded."""

    kind = "fashion_mnist"

    known_shape = (1, 28, 28)
    known_classes = len(CLASSES)

    def __init__(
        self,
        path: Text | None = None,
        num_examples: Positive | None = None,
        val_examples: Positive = 5000,
        val_split: ValSplit = "train",
        split_seed: NonNegative = 0,
    ) -> None:
        folder = path or str(cache_folder("fashion_mnist"))
        super().__init__(folder, num_examples, val_examples, val_split, split_seed, class_names=CLASSES)

    def read(self) -> tuple[Examples, Examples]:
        with reading(self.path):
            fetch([remote for key, remote in FILES.items() if not self.find(*key)], self.path)
        return super().read()

    def _read(self, prefix: str, content: str, file: Path) -> Array:
        values = super()._read(prefix, content, file)
        digest = hashlib.sha256(header(values.shape))
        digest.update(values.data)
        verify_digest(digest.hexdigest(), UNPACKED[prefix, content], file)
        return values
