"""MNIST, and where the committed files lie. Notebook 01."""

import shutil
import tempfile
import warnings
from pathlib import Path
from urllib.error import URLError

ROOT = Path(__file__).resolve().parent.parent
MEAN, STD = 0.1307, 0.3081  # of all pixels of the 60,000 training images
IMAGE_SHAPE = (1, 28, 28)  # of one image of MNIST, whatever network reads it


def mnist(train):
    """Return MNIST as (images, labels), x = (pixel / 255 - MEAN) / STD.

    images: float32 [N, 1, 28, 28]; labels: int64 [N]; N: 60,000 if train, else 10,000.
    Unpacks into a temporary folder, so that a read-only checkout will do and an
    interrupted run leaves nothing half-written.
    Raises ValueError for a damaged file, or a missing one that cannot be downloaded.
    Source: LeCun, Cortes, Burges, "The MNIST database". Taught in notebook 01.
    """
    # Only here: it takes a second to import, and most programs read no images.
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "MNIST", "raw")
        raw.mkdir(parents=True)
        for name, md5 in datasets.MNIST.resources:
            packed = ROOT / "data" / "MNIST" / "raw" / name
            if packed.exists() and not check_integrity(packed, md5):
                raise ValueError(
                    f"{packed} is damaged (its MD5 is not {md5}): delete it and run "
                    "this again to download it, or restore it with git checkout."
                )
            if packed.exists():
                shutil.copy(packed, raw)
        try:
            dataset = datasets.MNIST(folder, train=train, download=True)
        except (RuntimeError, URLError) as error:
            raise ValueError(
                f"A file of MNIST is missing in {ROOT / 'data' / 'MNIST' / 'raw'} and "
                "could not be downloaded: restore it with git checkout, or connect to "
                f"a network. ({error})"
            ) from error
    images = (dataset.data.unsqueeze(1) / 255 - MEAN) / STD
    return images, dataset.targets


def warn_of_raw_pixels(images):
    """Warn of pictures of MNIST's shape without a negative value, as mnist has."""
    if tuple(images.shape[1:]) == IMAGE_SHAPE and float(images.min()) >= 0:
        warnings.warn(
            f"no pixel is below 0: mq.mnist gives (pixel / 255 - {MEAN}) / {STD}, and "
            "a network trained on that misreads others. Normalise these as well.",
            stacklevel=4,
        )
