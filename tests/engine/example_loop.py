"""What the documents' examples are run with: tiny networks, their inputs, and a training step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

torch.manual_seed(0)
inputs, labels = torch.randn(6, 3), torch.arange(6) % 2
batches = [(inputs, labels)] * 3
model = nn.Sequential()
model.add_module("layer1", nn.Linear(3, 4))
model.add_module("layer2", nn.Linear(4, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)


def train_on(inputs: Tensor, labels: Tensor) -> Tensor:
    """Take one step."""
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()
    return loss


ids = torch.randint(0, 11, (6, 5), generator=torch.Generator().manual_seed(0))
mask = torch.arange(5) < torch.tensor([5, 4, 5, 3, 5, 5])[:, None]
images = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Encoder(nn.Module):
    """Layers ``encoder.layer.0`` and ``1`` over tokens; answers as a Hugging Face model does."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 6), nn.Linear(6, 2)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])})

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        x = self.embed(input_ids)
        for layer in self.encoder["layer"]:
            x = layer(x).relu()
        real = attention_mask[:, :, None].to(x.dtype)
        return {"logits": self.head((x * real).sum(1) / real.sum(1))}


class Reader(nn.Module):
    """A layer ``rnn`` whose output has the position first, and logits of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(11, 6), nn.Linear(6, 6)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList([nn.Linear(6, 6)])})
        self.head = nn.Linear(6, 11)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.rnn(self.embed(ids).transpose(0, 1)).transpose(0, 1)
        return self.head(self.encoder["layer"][0](x).relu())


class VAE(nn.Module):
    """Answers ``(reconstruction, code)``."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(16, 3), nn.Linear(3, 16)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encoder(images.flatten(1))
        return self.decoder(code).view_as(images), code


encoder, reader, vae = Encoder(), Reader(), VAE()
