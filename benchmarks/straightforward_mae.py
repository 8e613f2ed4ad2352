"""A straightforward implementation of Multi-Modal Mask MAE, for ``mae_step.py`` to compare with.

The same model as ``taskrobust.vision.mae.model``, with parameters of the same names, as one writes it first: all
patches of all maps are embedded by strided convolutions and the visible ones taken out, attention is spelled out, every
decoder puts the tokens of all maps back into their places, losses are taken on images. All samples have all maps,
without unknown pixels.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAPS = ("rgb", "depth", "semseg")
CHANNELS = {"rgb": 3, "depth": 1, "semseg": 133, "norm_rgb": 3}
SOURCES = {"rgb": "rgb", "depth": "depth", "semseg": "semseg", "norm_rgb": "rgb"}
STRIDES = {"rgb": 1, "depth": 1, "semseg": 4, "norm_rgb": 1}
PATCH, GRID, VISIBLE, CLASS_WIDTH = 16, 14, 98, 64
PATCHES = GRID**2


class Attention(nn.Module):
    """Attention of each token to all, [B, N, width] in and out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """What each token reads."""
        queries, keys, values = (split_heads(part, self.heads) for part in self.qkv(tokens).chunk(3, dim=-1))
        return self.proj(attend(queries, keys, values))


class CrossAttention(nn.Module):
    """Attention of queries [B, N, width] to a context [B, S, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """What each query reads."""
        keys, values = (split_heads(part, self.heads) for part in self.kv(context).chunk(2, dim=-1))
        return self.proj(attend(split_heads(self.q(queries), self.heads), keys, values))


class Mlp(nn.Module):
    """A perceptron with one hidden layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of the same shape."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """A transformer block, normalization first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of the same shape."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class ClassConvolution(nn.Module):
    """Embeds the class of each place and convolves the vectors of a patch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        places = PATCH // STRIDES["semseg"]
        self.classes = nn.Embedding(CHANNELS["semseg"], CLASS_WIDTH)
        self.projection = nn.Conv2d(CLASS_WIDTH, width, kernel_size=places, stride=places)

    def forward(self, labels: Tensor) -> Tensor:
        """Maps of tokens [B, width, 14, 14] of labels [B, 56, 56]."""
        return self.projection(self.classes(labels).permute(0, 3, 1, 2))


class Encoder(nn.Module):
    """Tokens of the visible patches and the global token, [B, 99, width]."""

    positions: Tensor

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "rgb": nn.Conv2d(CHANNELS["rgb"], width, kernel_size=PATCH, stride=PATCH),
                "depth": nn.Conv2d(CHANNELS["depth"], width, kernel_size=PATCH, stride=PATCH),
                "semseg": ClassConvolution(width),
            }
        )
        self.global_token = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.register_buffer("positions", sincos_positions(width), persistent=False)

    def forward(self, maps: Mapping[str, Tensor], visible: Tensor) -> Tensor:
        """Embeds everything, then takes the visible patches, [B, 98]."""
        embedded = [self.embeddings[name](maps[name]).flatten(2).transpose(1, 2) + self.positions for name in MAPS]
        tokens = take(torch.cat(embedded, dim=1), visible)
        tokens = torch.cat([tokens, self.global_token.expand(len(tokens), 1, -1)], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class Decoder(nn.Module):
    """The predicted image of one task, [B, C, H, W]."""

    positions: Tensor

    def __init__(self, task: str, encoder_width: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.own = MAPS.index(SOURCES[task])
        self.channels = CHANNELS[task]
        self.side = PATCH // STRIDES[task]
        self.proj_context = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.modality_embedding = nn.Parameter(torch.zeros(len(MAPS), width))
        self.query_norm = nn.LayerNorm(width, eps=1e-6)
        self.context_norm = nn.LayerNorm(width, eps=1e-6)
        self.attn = CrossAttention(width, heads)
        self.out_norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.out_proj = nn.Linear(width, self.channels * self.side**2)
        self.register_buffer("positions", sincos_positions(width), persistent=False)

    def forward(self, tokens: Tensor, visible: Tensor, restore: Tensor) -> Tensor:
        """From the encoder's tokens, which patches they are, and where each patch is among visible and masked ones."""
        tokens = self.proj_context(tokens)
        tokens, global_token = tokens[:, :-1], tokens[:, -1:]
        batch, _, width = tokens.shape
        masked = self.mask_token.to(tokens.dtype).expand(batch, len(MAPS) * PATCHES - VISIBLE, width)
        everything = take(torch.cat([tokens, masked], dim=1), restore)
        everything = everything + torch.cat([self.positions + vector for vector in self.modality_embedding])
        context = torch.cat([take(everything, visible), global_token], dim=1)
        queries = everything[:, self.own * PATCHES : (self.own + 1) * PATCHES]
        queries = self.attn(self.query_norm(queries), self.context_norm(context))
        queries = queries + self.mlp(self.out_norm(queries))
        for block in self.blocks:
            queries = block(queries)
        return to_image(self.out_proj(queries), self.channels, self.side)


class StraightforwardMae(nn.Module):
    """For images of 224 pixels in patches of 16, with 98 visible patches and 133 classes."""

    def __init__(
        self,
        tasks: tuple[str, ...],
        width: int,
        heads: int,
        decoder_width: int,
        depth: int = 12,
        decoder_depth: int = 2,
        decoder_heads: int = 8,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(width, depth, heads)
        self.decoders = nn.ModuleDict(
            {task: Decoder(task, width, decoder_width, decoder_depth, decoder_heads) for task in tasks}
        )

    def forward(self, maps: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        """The predicted image of each task.

        Args:
            maps: What ``prepared_maps`` returns.
            mask: Which patches of the maps, one map after another, are masked, bool [B, 3 · 196].
        """
        order = mask.long().argsort(dim=1, stable=True)
        visible, restore = order[:, :VISIBLE], order.argsort(dim=1)
        tokens = self.encoder(maps, visible)
        return {task: decoder(tokens, visible, restore) for task, decoder in self.decoders.items()}

    def load_weights_of(self, state: Mapping[str, Tensor]) -> None:
        """Takes over the weights of a ``MultiModalMae``, whose convolutions are linear maps."""
        name = "encoder.embeddings.semseg.projection.weight"
        convolution = state[name].unflatten(1, (-1, CLASS_WIDTH)).transpose(1, 2)  # channels first
        own = self.state_dict()
        self.load_state_dict(
            {key: weight.reshape(own[key].shape) for key, weight in {**state, name: convolution}.items()}
        )


def task_losses(predictions: Mapping[str, Tensor], maps: Mapping[str, Tensor], mask: Tensor) -> Tensor:
    """Mean loss of each task over the masked pixels of a sample, then over the samples, [T]."""
    losses = []
    for task, prediction in predictions.items():
        target, prediction = maps[SOURCES[task]], prediction.float()
        if task == "norm_rgb":
            target = normalised_patches(target)
        if task == "semseg":
            errors = F.cross_entropy(prediction, target, reduction="none")[:, None]
        elif task == "depth":
            errors = F.l1_loss(prediction, target, reduction="none")
        else:
            errors = F.mse_loss(prediction, target, reduction="none")
        side = PATCH // STRIDES[task]
        masked = mask.view(-1, len(MAPS), GRID, GRID)[:, MAPS.index(SOURCES[task])].float()
        masked = masked.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)[:, None]
        numbers = masked.flatten(1).sum(1) * errors.shape[1]
        losses.append(((errors * masked).flatten(1).sum(1) / numbers).mean())
    return torch.stack(losses)


def minimax_total(losses: Tensor) -> Tensor:
    """The losses weighed by their softmax, which carries no gradient."""
    return (losses.detach().softmax(0) * losses).sum()


def prepared_maps(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Normalizes the maps of a batch: colors by ImageNet's moments, depth by those of its central 80 %."""
    mean, std = (batch["depth"].new_tensor(m)[:, None, None] for m in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    ordered = batch["depth"].flatten(1).sort(dim=1).values
    tail = ordered.shape[1] // 10
    central = ordered[:, tail : ordered.shape[1] - tail]
    variance, center = torch.var_mean(central, dim=1, correction=0)
    return {
        "rgb": (batch["rgb"].float() / 255 - mean) / std,
        "depth": (batch["depth"] - center[:, None, None, None]) / (variance + 1e-6).sqrt()[:, None, None, None],
        "semseg": batch["semseg"].long(),
    }


def random_mask(batch: int, device: str) -> Tensor:
    """Masks all but 98 of the patches of the maps, bool [B, 3 · 196]; a Dirichlet variate shares the 98 out."""
    shares = torch.distributions.Dirichlet(torch.ones(len(MAPS), device=device)).sample((batch,))
    numbers = (VISIBLE * shares).round()
    ranks = torch.rand(batch, len(MAPS), PATCHES, device=device).argsort(dim=2).argsort(dim=2)
    mask = (ranks >= numbers[..., None]).float().flatten(1)
    visible = (mask + torch.rand_like(mask)).argsort(dim=1)[:, :VISIBLE]
    return torch.ones_like(mask, dtype=torch.bool).scatter_(1, visible, False)


def normalised_patches(images: Tensor) -> Tensor:
    """Colors standardized in each patch."""
    cut = images.view(len(images), 3, GRID, PATCH, GRID, PATCH)
    patches = cut.permute(0, 2, 4, 1, 3, 5).reshape(len(images), PATCHES, 3 * PATCH**2)
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return to_image((patches - mean) / (variance + 1e-6).sqrt(), 3, PATCH)


def to_image(patches: Tensor, channels: int, side: int) -> Tensor:
    cut = patches.view(len(patches), GRID, GRID, channels, side, side)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), channels, GRID * side, GRID * side)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Tokens [B, V, D] at an index [B, V]."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    scores = queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5
    return (scores.softmax(dim=-1) @ values).transpose(1, 2).flatten(2)


def sincos_positions(width: int) -> Tensor:
    """Sine and cosine of the row, then of the column, [196, width]."""
    frequencies = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    place = torch.arange(PATCHES)
    angles = [axis[:, None] * frequencies for axis in (place // GRID, place % GRID)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1).float()
