"""The settings of data, labels and probes, which a training recipe embeds as its tables [data], [labels], [probes]."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from featdyn.validation import Fraction, Options

Severity = Annotated[int, Field(ge=1, le=5)]


class DataOptions(Options):
    """Which images to train on."""

    name: str = Field(
        "digits",
        description="digits, docstrings (texts), mod97 (sums modulo 97, rows of one-hot symbols), mnist, cifar10, "
        "cifar100, svhn, stl10, or imagefolder:PATH, a folder that holds {train,test}/<class>/<image files>",
    )
    data_dir: Path | None = Field(
        None, description="the folder that holds the downloaded files of mnist, cifar10, cifar100, svhn and stl10"
    )
    download: bool = Field(False, description="fetch missing files of these data sets into data_dir")
    image_size: int | None = Field(
        None, ge=1, le=8192, description="resize every image to this height and width (centre crop where not square)"
    )
    train_size: int | None = Field(
        None, ge=1, description="train on this many of the training images, as many of each class as possible"
    )
    seed: int = Field(0, ge=0, description="seed of the choice of train_size images")
    shortcut: Fraction | None = Field(
        None,
        description="write a label into the first pixels of every image: of this share of the training images their "
        "own, of all others and of test images a random one",
    )


class LabelOptions(Options):
    """Label noise: a fraction of the training labels is permuted among the chosen samples (our own choice of noise)."""

    noise: float = Field(0.0, ge=0, le=1, description="fraction of training samples whose labels are permuted, 0 to 1")
    seed: int = Field(0, ge=0, description="seed of the choice of samples and of their permutation")


class ProbeOptions(Options):
    """Which fixed samples are recorded at every checkpoint. All counts are numbers of images."""

    train: int = Field(
        256, ge=0, description="training images, without augmentation, as many of each class as possible"
    )
    test: int = Field(256, ge=0, description="test images, as many of each class as possible")
    corrupted: int = Field(
        0, ge=0, description="how many of the test probes, from the first, are recorded in corrupted versions too"
    )
    corruptions: tuple[str, ...] = Field(
        ("gaussian_noise", "gaussian_blur", "contrast"),
        description="corruptions of these images: gaussian_noise, shot_noise, impulse_noise, gaussian_blur, contrast, "
        "brightness, pixelate (made by featdyn), or any array in the folder cifar10c",
    )
    severities: tuple[Severity, ...] = Field((3,), description="severities of each corruption, 1 to 5")
    cifar10c: Path | None = Field(
        None, description="folder of the published CIFAR-10-C arrays, used instead of featdyn's own corruptions"
    )
    shifted: str | None = Field(
        None,
        description="another data set with classes of the same names, such as stl10 for cifar10, or imagefolder:PATH",
    )
    shifted_count: int = Field(256, ge=0, description="test images of the shifted data set, only of the shared classes")
    seed: int = Field(0, ge=0, description="seed of the choice of probes and of their corruptions")

    @model_validator(mode="after")
    def _corruptions(self) -> Self:
        for name, values in (("corruptions", self.corruptions), ("severities", self.severities)):
            if self.corrupted and not values:
                raise ValueError(f"{name} is empty, but corrupted = {self.corrupted}")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} holds a value twice")
        return self
